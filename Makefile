# make up is what an operator needs; make test is what a change needs.
# Further variables for ansible-playbook: make up E='postgres_port=5433 postgres_container_name=second'
# Further arguments: make up ARGS='--check --diff'

export PATH := $(CURDIR)/.venv/bin:$(PATH)
# Without its cache Python compiles Ansible anew for each playbook, which takes longer than most playbooks.
unexport PYTHONDONTWRITEBYTECODE
SHELL := /bin/sh
E ?=
ARGS ?=
EXTRA = $(if $(strip $(E)),--extra-vars "$(E)") $(ARGS)
PYTEST = pytest $(PYTEST_ARGS)

.DEFAULT_GOAL := help
.PHONY: help up setup setup-dev test lint unit mutants prepare security integration molecule faults docs bench clean

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | sort | awk -F'\t' '{ printf "  make %-12s %s\n", $$1, $$2 }'

up: setup ## From a bare machine to a tuned, migrated and seeded database
	@ansible-playbook playbooks/site.yml $(EXTRA)

setup: ## Make .venv with what a run needs
	@scripts/setup

setup-dev: ## Make .venv with what the tests need, too
	@scripts/setup --dev

test: ## Everything that proves the project: lint, unit, security, integration, molecule
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory unit
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

prepare: setup-dev
	@ansible-playbook tests/prepare.yml

security: prepare ## Attacks by the application, by files and by names, each shown to work elsewhere first
	$(PYTEST) tests/security

integration: prepare ## Tests against a real engine and a real server
	$(PYTEST) --numprocesses 3 --dist loadfile --no-loadscope-reorder --durations 15 tests/integration

molecule: prepare ## The roles on a real host: check, converge, idempotence, verify
	molecule test --all

faults: prepare ## 200 migrations, 100 backups and restores hit by kill -9 at random moments; ten at once, full disks, lost volumes
	python tests/faults/campaign.py $(ARGS)
	python tests/faults/backups.py
	python tests/faults/backups.py --runs 0 --round-trips 0 --zero-loss
	$(PYTEST) tests/integration/test_faults.py tests/integration/test_migration_alone.py -k "disk_full or blocked"

docs: setup-dev ## Write the tables of variables into the READMEs
	scripts/role_tables.py

bench: setup-dev ## Measure against the alternatives (about an hour)
	python benchmarks/migrations.py --big --make-up $(ARGS)
	python benchmarks/seed_volume.py
	python benchmarks/backups.py

clean: ## Remove .venv and caches; containers, images and data stay
	rm -rf .venv .setup.lock .ansible .cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
