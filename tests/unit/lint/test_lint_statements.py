"""Every kind of statement in PostgreSQL's grammar has been looked at, and lint finds in its examples what is said of it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.dastern.common.migration_files import MigrationFile
from ansible.module_utils.dastern.common.sql_text import tokens
from ansible.module_utils.dastern.lint import squawk
from ansible.module_utils.dastern.lint.lint import OWN_RULES, lint

ROOT = Path(__file__).resolve().parents[3]
SECTIONS: dict[str, list[dict[str, Any]]] = yaml.safe_load((ROOT / "docs" / "lint_statements.yml").read_text("utf-8"))
EXAMPLES = [one for examples in SECTIONS.values() for one in examples]
# The alternatives of `stmt` in the grammar of PostgreSQL 17, and BEGIN and END, which are beside it.
STATEMENTS = """
    AlterCollationStmt AlterCompositeTypeStmt AlterDatabaseSetStmt AlterDatabaseStmt AlterDefaultPrivilegesStmt
    AlterDomainStmt AlterEnumStmt AlterEventTrigStmt AlterExtensionContentsStmt AlterExtensionStmt AlterFdwStmt
    AlterForeignServerStmt AlterFunctionStmt AlterGroupStmt AlterObjectDependsStmt AlterObjectSchemaStmt
    AlterOpFamilyStmt AlterOperatorStmt AlterOwnerStmt AlterPolicyStmt AlterPublicationStmt AlterRoleSetStmt
    AlterRoleStmt AlterSeqStmt AlterStatsStmt AlterSubscriptionStmt AlterSystemStmt AlterTSConfigurationStmt
    AlterTSDictionaryStmt AlterTableStmt AlterTblSpcStmt AlterTypeStmt AlterUserMappingStmt AnalyzeStmt CallStmt
    CheckPointStmt ClosePortalStmt ClusterStmt CommentStmt ConstraintsSetStmt CopyStmt CreateAmStmt CreateAsStmt
    CreateAssertionStmt CreateCastStmt CreateConversionStmt CreateDomainStmt CreateEventTrigStmt CreateExtensionStmt
    CreateFdwStmt CreateForeignServerStmt CreateForeignTableStmt CreateFunctionStmt CreateGroupStmt
    CreateMatViewStmt CreateOpClassStmt CreateOpFamilyStmt CreatePLangStmt CreatePolicyStmt CreatePublicationStmt
    CreateRoleStmt CreateSchemaStmt CreateSeqStmt CreateStatsStmt CreateStmt CreateSubscriptionStmt
    CreateTableSpaceStmt CreateTransformStmt CreateTrigStmt CreateUserMappingStmt CreateUserStmt CreatedbStmt
    DeallocateStmt DeclareCursorStmt DefineStmt DeleteStmt DiscardStmt DoStmt DropCastStmt DropOpClassStmt
    DropOpFamilyStmt DropOwnedStmt DropRoleStmt DropStmt DropSubscriptionStmt DropTableSpaceStmt DropTransformStmt
    DropUserMappingStmt DropdbStmt ExecuteStmt ExplainStmt FetchStmt GrantRoleStmt GrantStmt ImportForeignSchemaStmt
    IndexStmt InsertStmt ListenStmt LoadStmt LockStmt MergeStmt NotifyStmt PrepareStmt ReassignOwnedStmt
    RefreshMatViewStmt ReindexStmt RemoveAggrStmt RemoveFuncStmt RemoveOperStmt RenameStmt RevokeRoleStmt RevokeStmt
    RuleStmt SecLabelStmt SelectStmt TransactionStmt TransactionStmtLegacy TruncateStmt UnlistenStmt UpdateStmt
    VacuumStmt VariableResetStmt VariableSetStmt VariableShowStmt ViewStmt
"""
# The subcommands of ALTER TABLE, but for those that the server makes itself.
SUBCOMMANDS = """
    AddColumn ColumnDefault DropNotNull SetNotNull SetExpression DropExpression SetStatistics SetOptions
    ResetOptions SetStorage SetCompression DropColumn AddConstraint AlterConstraint ValidateConstraint
    AddIndexConstraint DropConstraint AlterColumnType AlterColumnGenericOptions ChangeOwner ClusterOn DropCluster
    SetLogged SetUnLogged DropOids SetAccessMethod SetTableSpace SetRelOptions ResetRelOptions EnableTrig
    EnableAlwaysTrig EnableReplicaTrig DisableTrig EnableTrigAll DisableTrigAll EnableTrigUser DisableTrigUser
    EnableRule EnableAlwaysRule EnableReplicaRule DisableRule AddInherit DropInherit AddOf DropOf ReplicaIdentity
    EnableRowSecurity DisableRowSecurity ForceRowSecurity NoForceRowSecurity GenericOptions AttachPartition
    DetachPartition DetachPartitionFinalize AddIdentity SetIdentity DropIdentity
"""
# What `\h` of psql 17 knows.
COMMANDS = """
    ABORT ALTER_AGGREGATE ALTER_COLLATION ALTER_CONVERSION ALTER_DATABASE ALTER_DEFAULT_PRIVILEGES ALTER_DOMAIN
    ALTER_EVENT_TRIGGER ALTER_EXTENSION ALTER_FOREIGN_DATA_WRAPPER ALTER_FOREIGN_TABLE ALTER_FUNCTION ALTER_GROUP
    ALTER_INDEX ALTER_LANGUAGE ALTER_LARGE_OBJECT ALTER_MATERIALIZED_VIEW ALTER_OPERATOR ALTER_OPERATOR_CLASS
    ALTER_OPERATOR_FAMILY ALTER_POLICY ALTER_PROCEDURE ALTER_PUBLICATION ALTER_ROLE ALTER_ROUTINE ALTER_RULE
    ALTER_SCHEMA ALTER_SEQUENCE ALTER_SERVER ALTER_STATISTICS ALTER_SUBSCRIPTION ALTER_SYSTEM ALTER_TABLE
    ALTER_TABLESPACE ALTER_TEXT_SEARCH_CONFIGURATION ALTER_TEXT_SEARCH_DICTIONARY ALTER_TEXT_SEARCH_PARSER
    ALTER_TEXT_SEARCH_TEMPLATE ALTER_TRIGGER ALTER_TYPE ALTER_USER ALTER_USER_MAPPING ALTER_VIEW ANALYZE BEGIN CALL
    CHECKPOINT CLOSE CLUSTER COMMENT COMMIT COMMIT_PREPARED COPY CREATE_ACCESS_METHOD CREATE_AGGREGATE CREATE_CAST
    CREATE_COLLATION CREATE_CONVERSION CREATE_DATABASE CREATE_DOMAIN CREATE_EVENT_TRIGGER CREATE_EXTENSION
    CREATE_FOREIGN_DATA_WRAPPER CREATE_FOREIGN_TABLE CREATE_FUNCTION CREATE_GROUP CREATE_INDEX CREATE_LANGUAGE
    CREATE_MATERIALIZED_VIEW CREATE_OPERATOR CREATE_OPERATOR_CLASS CREATE_OPERATOR_FAMILY CREATE_POLICY
    CREATE_PROCEDURE CREATE_PUBLICATION CREATE_ROLE CREATE_RULE CREATE_SCHEMA CREATE_SEQUENCE CREATE_SERVER
    CREATE_STATISTICS CREATE_SUBSCRIPTION CREATE_TABLE CREATE_TABLE_AS CREATE_TABLESPACE
    CREATE_TEXT_SEARCH_CONFIGURATION CREATE_TEXT_SEARCH_DICTIONARY CREATE_TEXT_SEARCH_PARSER
    CREATE_TEXT_SEARCH_TEMPLATE CREATE_TRANSFORM CREATE_TRIGGER CREATE_TYPE CREATE_USER CREATE_USER_MAPPING
    CREATE_VIEW DEALLOCATE DECLARE DELETE DISCARD DO DROP_ACCESS_METHOD DROP_AGGREGATE DROP_CAST DROP_COLLATION
    DROP_CONVERSION DROP_DATABASE DROP_DOMAIN DROP_EVENT_TRIGGER DROP_EXTENSION DROP_FOREIGN_DATA_WRAPPER
    DROP_FOREIGN_TABLE DROP_FUNCTION DROP_GROUP DROP_INDEX DROP_LANGUAGE DROP_MATERIALIZED_VIEW DROP_OPERATOR
    DROP_OPERATOR_CLASS DROP_OPERATOR_FAMILY DROP_OWNED DROP_POLICY DROP_PROCEDURE DROP_PUBLICATION DROP_ROLE
    DROP_ROUTINE DROP_RULE DROP_SCHEMA DROP_SEQUENCE DROP_SERVER DROP_STATISTICS DROP_SUBSCRIPTION DROP_TABLE
    DROP_TABLESPACE DROP_TEXT_SEARCH_CONFIGURATION DROP_TEXT_SEARCH_DICTIONARY DROP_TEXT_SEARCH_PARSER
    DROP_TEXT_SEARCH_TEMPLATE DROP_TRANSFORM DROP_TRIGGER DROP_TYPE DROP_USER DROP_USER_MAPPING DROP_VIEW END
    EXECUTE EXPLAIN FETCH GRANT IMPORT_FOREIGN_SCHEMA INSERT LISTEN LOAD LOCK MERGE MOVE NOTIFY PREPARE
    PREPARE_TRANSACTION REASSIGN_OWNED REFRESH_MATERIALIZED_VIEW REINDEX RELEASE_SAVEPOINT RESET REVOKE ROLLBACK
    ROLLBACK_PREPARED ROLLBACK_TO_SAVEPOINT SAVEPOINT SECURITY_LABEL SELECT SELECT_INTO SET SET_CONSTRAINTS SET_ROLE
    SET_SESSION_AUTHORIZATION SET_TRANSACTION SHOW START_TRANSACTION TABLE TRUNCATE UNLISTEN UPDATE VACUUM VALUES
    WITH
"""


def test_every_kind_of_statement_has_an_example() -> None:
    kinds = {one["kind"].split()[0] for one in EXAMPLES}
    assert kinds == set(STATEMENTS.split())


def test_every_subcommand_of_alter_table_has_an_example() -> None:
    kinds = {one["kind"].partition(" ")[2] for one in EXAMPLES} - {""}
    assert kinds == set(SUBCOMMANDS.split())


@pytest.mark.parametrize("command", COMMANDS.split())
def test_every_command_has_an_example(command: str) -> None:
    first, *rest = command.split("_")
    pattern = re.compile(rf"(?:^|; ?){first}\b" + "".join(rf"[^;]*?\b{word}\b" for word in rest), re.IGNORECASE)
    assert any(pattern.search(" ".join(one["sql"].split())) for one in EXAMPLES)


@pytest.mark.parametrize("example", EXAMPLES, ids=[one["sql"][:60] for one in EXAMPLES])
def test_example(example: dict[str, Any], tmp_path: Path) -> None:
    found = lint([MigrationFile("1", example["sql"])], ["1"], tmp_path)
    assert {one.rule: one.severity for one in found} == example.get("finds", {})


ROWS = "".join(f"INSERT INTO kept (id, b) VALUES ({number}, 'x {number}');\n" for number in range(500))


@pytest.mark.parametrize("example", EXAMPLES, ids=[one["sql"][:60] for one in EXAMPLES])
def test_example_behind_many_rows(example: dict[str, Any], tmp_path: Path) -> None:
    """A big file is read by its outline, which hides nothing from a rule; a statement that stood alone no longer does."""
    small = "INSERT INTO kept (id, b) VALUES (0, 'x 0');\n" * 3
    rules = [
        [(one.rule, one.severity, one.line - before.count("\n"), one.column) for one in lint([MigrationFile("1", before + example["sql"])], ["1"], tmp_path)]
        for before in (small, ROWS)
    ]  # fmt: skip
    assert len(ROWS) > 20_000
    assert rules[0] == rules[1]


@pytest.mark.parametrize(
    ("rule", "before", "row", "behind"),
    [
        ("enum-value-used", "DO $$ BEGIN ALTER TYPE m ADD VALUE 'SAD'; END $$;", "'SAD'", ""),
        ("enum-value-used", "DO $$ BEGIN EXECUTE 'ALTER TYPE m ADD VALUE ''SAD'''; END $$;", "'SAD'", ""),
        ("enum-value-used", "DO 'BEGIN EXECUTE ''ALTER TYPE m ADD VALUE ''''SAD''''''; END';", "'SAD'", ""),
        ("enum-value-used", "DO $$ BEGIN EXECUTE E'ALTER TYPE m ADD VALUE \\'SAD\\''; END $$;", "'SAD'", ""),
        ("enum-value-used", "ALTER TYPE m ADD VALUE $$SAD$$;", "'SAD'", ""),
        ("enum-value-used", "ALTER TYPE m ADD VALUE E'SAD';", "E'SAD'", ""),
        ("enum-value-used", "ALTER TYPE m ADD VALUE 'it''s';", "'it''s'", ""),
        (
            "enum-value-used",
            "CREATE FUNCTION f() RETURNS void LANGUAGE sql AS $$ ALTER TYPE m ADD VALUE 'SAD' $$; SELECT f();",
            "'SAD'",
            "",
        ),
        (
            "deletes-all-rows",
            "CREATE FUNCTION now() RETURNS int LANGUAGE sql AS $$ DELETE FROM x; SELECT 1 $$;",
            "now()",
            "",
        ),
        ("deletes-all-rows", "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $$ DELETE FROM x; SELECT 1 $$;", "1", "SELECT f();"),
        ("deletes-all-rows", "", "1", "DELETE FROM x WHERE a = 1; DELETE FROM x WHERE a = 2; DELETE FROM x WHERE true = true;"),
    ],
)  # fmt: skip
def test_what_many_rows_hold(rule: str, before: str, row: str, behind: str, tmp_path: Path) -> None:
    sql = f"{before}\n{ROWS}INSERT INTO kept (id, b) VALUES (1, {row});\n{ROWS}{behind}"
    assert rule in {one.rule for one in lint([MigrationFile("1", sql)], ["1"], tmp_path)}


def test_half_a_statement_is_no_surprise(tmp_path: Path) -> None:
    """The server says that it is wrong; lint reads on."""
    files = [
        MigrationFile(f"{number:03}_{at:02}", one["sql"][: start + len(token)])
        for number, one in enumerate(EXAMPLES)
        for at, (_, token, start) in enumerate(tokens(one["sql"]))
    ]
    assert lint(files, [file.name for file in files], tmp_path)


def test_each_example_stands_once() -> None:
    texts = [one["sql"] for one in EXAMPLES]
    assert sorted(set(texts)) == sorted(texts)
    assert all(set(one) <= {"kind", "sql", "finds", "sqlstate", "why"} and one["why"].endswith(".") for one in EXAMPLES)


def test_page() -> None:
    """The page is made of the examples, and has each rule."""
    checked = subprocess.run(
        [sys.executable, ROOT / "scripts" / "role_tables.py", "--check"], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout
    page = (ROOT / "docs" / "lint.md").read_text("utf-8")
    head = page.split("<!-- statements -->")[0].replace(
        "`-index-deletion`, `-partition-detach`",
        "`require-concurrent-index-deletion` `require-concurrent-partition-detach`",
    )
    named = set(re.findall(r"`([a-z-]+)`", head))
    assert {*OWN_RULES, *squawk.RULES} <= named
    # Rules that an example can have are all shown by one; the others are about files as a whole.
    shown = {rule for one in EXAMPLES for rule in one.get("finds", {})}
    assert set(OWN_RULES) - shown == {"concurrently-partitioned", "empty", "psql-command", "squawk", "unreadable"}
