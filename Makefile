# make up is what an operator needs; make test is what a change needs.
# Variables of a playbook are further words: make restore target='2026-02-08 10:30:00+07' confirm=dastern
# The same in Ansible's own form: make up E='postgres_port=5433 postgres_container_name=second'
# Further arguments: make up ARGS='--check --diff'

# The words name=value of the command line, except those that make, scripts/setup and pytest read. A value is data: make
# expands nothing in it, and passes it to the playbook alone, not to the environment of programs.
override WORDS := $(sort $(filter-out E ARGS PYTEST_ARGS SETUP_PYTHON SETUP_NO_UV,$(foreach \
	.word,$(.VARIABLES),$(if $(filter command line,$(origin $(.word))),$(.word)))))
$(foreach .word,$(WORDS),$(eval unexport $(.word)))

export PATH := $(CURDIR)/.venv/bin:$(PATH)
# Without its cache Python compiles Ansible anew for each playbook, which takes longer than most playbooks.
unexport PYTHONDONTWRITEBYTECODE
SHELL := /bin/sh
E ?=
ARGS ?=
PYTEST = pytest $(PYTEST_ARGS)
# make hands its command line on in these, with all that stands there.
PLAY = env -u MAKEFLAGS -u MFLAGS -u MAKEOVERRIDES ansible-playbook

# A text as one word of the shell, as JSON, and a word of the command line as an option of ansible-playbook.
override tab := $(subst x,,x	x)
override define newline


endef
override shell_word = '$(subst ','\'',$(1))'
override json_text = "$(subst $(newline),\n,$(subst $(tab),\t,$(subst ",\",$(subst \,\\,$(1)))))"
override extra_var = --extra-vars $(call shell_word,{$(call json_text,$(1)): $(call json_text,$(value $(1)))})
override EXTRA = $(if $(strip $(E)),--extra-vars "$(E)") $(foreach .word,$(WORDS),$(call extra_var,$(.word))) $(ARGS)

# A variable of the instance for `make console`, which reads these three and no inventory.
override CONSOLE := postgres_container_name postgres_readonly_user postgres_database
override of_instance = $(call shell_word,$(or $(value $(1)),$(2)))

.DEFAULT_GOAL := help
.PHONY: help up provision status migrate migration-status new-migration resolve-migration baseline rollback rehearse reset \
	seed drift schema console backup list-backups verify-backups restore restore-drill backup-schedule plain-sql \
	save-image remove setup setup-dev format test test-all lint unit syntax mutants platform platforms prepare security integration \
	molecule faults docs bench clean

help: ## Show this list
	@awk -F':.*## ' '/^##@ / { print "\n" substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

##@ The database: playbooks, with their variables as name=value (docs/playbooks.md) and ARGS='--check --diff'

up: setup ## From a bare machine to a tuned, migrated and seeded database
	@$(PLAY) playbooks/site.yml $(EXTRA)

provision: setup ## Engine, image, container, settings, roles, privileges
status: setup ## One screen: what runs, what differs, what to do next
remove: setup ## Remove the container; the data only if confirmed twice
save-image: setup ## Write the image to an archive for a machine without network: postgres_image_archive=PATH

##@ Schema and rows

migrate: setup ## Apply the pending migrations
migration-status: setup ## Show each migration; exit code 3 when some are pending
new-migration: setup ## Make the files of a new migration: migration_name=NAME
rehearse: setup ## Run the pending migrations on a copy and measure them
rollback: setup ## Take migrations back by their down.sql: to=NAME
resolve-migration: setup ## Decide about one row of the ledger: applied=NAME, rolled_back=NAME, adopt=NAME, repair=NAME
baseline: setup ## Record the migrations that a database without a ledger already has
drift: setup ## Compare the live schema with its migrations
schema: setup ## Write the live schema as SQL and as a diagram
seed: setup ## Bring the declared rows into the database
reset: setup ## Empty a development database, migrate and seed it anew: confirm=DATABASE

##@ Backups

backup: setup ## Take a backup, verify it, delete expired ones
list-backups: setup ## Show all backups
verify-backups: setup ## Read all of every backup
restore: setup ## Bring a cluster, a database or a table back: target=LABEL|TIME|latest confirm=...
restore-drill: setup ## Restore a backup into a throwaway server and compare it
backup-schedule: setup ## Let the host take its backups by itself
plain-sql: setup ## Write a database as plain SQL, or make a new one of it: out=FILE, file=FILE

provision status remove save-image migrate migration-status new-migration rehearse rollback resolve-migration baseline drift \
schema seed reset backup list-backups verify-backups restore restore-drill backup-schedule plain-sql:
	@$(PLAY) playbooks/$(subst -,_,$@).yml $(EXTRA)

##@ Tools

console: ## psql in the container as the read-only role
	$(if $(filter-out $(CONSOLE),$(WORDS))$(strip $(E)),$(error `make console` reads only $(CONSOLE), each as name=value, and ARGS))
	@docker exec --interactive $$(test -t 0 && echo --tty) --user postgres \
		$(call of_instance,postgres_container_name,dastern-postgres) psql $(ARGS) \
		--username $(call of_instance,postgres_readonly_user,dastern_readonly) \
		--dbname $(call of_instance,postgres_database,dastern)

setup: ## Make .venv with the packages that a run needs
	@scripts/setup

setup-dev: ## Make .venv with the packages that the tests need, too
	@scripts/setup --dev

clean: ## Remove .venv and caches; containers, images and data stay
	rm -rf .venv .setup.lock .ansible .cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

##@ The project itself

format: setup-dev ## Format the Python code and apply ruff's safe fixes
	ruff check --fix .
	ruff format .

test-all: ## Everything that test does, the other platforms, and the campaigns of faults
	@$(MAKE) --no-print-directory test
	@$(MAKE) --no-print-directory platforms
	@$(MAKE) --no-print-directory faults

test: ## Everything that proves the project: lint, unit, security, integration, molecule
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory unit
	@$(MAKE) --no-print-directory syntax platform
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=line integration security molecule

lint: setup-dev ## ansible-lint, yamllint, ruff, mypy, and the migrations
	yamllint --strict .
	scripts/ansible_lint.py --offline
	ruff check .
	ruff format --check .
	mypy plugins/modules plugins/module_utils scripts benchmarks
	mypy plugins/action plugins/callback
	scripts/role_tables.py --check
	scripts/lint_migrations.py

unit: setup-dev ## Tests of the pure logic
	$(PYTEST) --numprocesses 2 tests/unit

mutants: setup-dev ## Break important lines one by one; each has to fail a unit test
	@python scripts/mutants.py $(ARGS)

syntax: setup-dev ## Let Ansible parse every playbook
	ansible-playbook --syntax-check migrate.yml playbooks/*.yml tests/prepare.yml molecule/default/create.yml molecule/default/destroy.yml

platform: setup-dev ## Unit tests and syntax under the other Python, 3.11 or 3.13, where it is there
	scripts/platforms --short

platforms: ## Lint, unit tests, syntax and `make up` on Python 3.11, on 3.13, and on Debian 13
	scripts/platforms

prepare: setup-dev
	@ansible-playbook tests/prepare.yml

security: prepare ## Attacks by the application, by files and by names, each shown to work elsewhere first
	$(PYTEST) tests/security

integration: prepare ## Tests against a real engine and a real server
	$(PYTEST) --numprocesses 3 --dist loadfile --no-loadscope-reorder --durations 15 tests/integration

molecule: prepare ## The roles on a real host: check, converge, idempotence, verify
	molecule test --all

faults: prepare ## kill -9 in 200 migrations and 100 backups and restores; ten at once, full disks, lost volumes
	python tests/faults/campaign.py $(ARGS)
	python tests/faults/backups.py
	python tests/faults/backups.py --runs 0 --round-trips 0 --zero-loss
	$(PYTEST) tests/integration/test_faults.py tests/integration/test_migration_alone.py -k "disk_full or blocked"

docs: setup-dev ## Write the tables of variables into docs/roles
	scripts/role_tables.py

bench: setup-dev ## Measure against the alternatives (about an hour)
	python benchmarks/migrations.py --big --make-up $(ARGS)
	python benchmarks/seed_volume.py
	python benchmarks/backups.py
