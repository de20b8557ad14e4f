"""A dump is checked before it replaces a database. Scenario data restores dumps on real servers."""

from __future__ import annotations

import gzip

import pytest

from flaskstack import mysql, restore
from flaskstack.errors import ValidationError

DUMP = b"""-- MariaDB dump 10.19  Distrib 10.11.14-MariaDB, for debian-linux-gnu (x86_64)
--
-- Host: localhost    Database: shop
-- ------------------------------------------------------
-- Server version\t10.11.14-MariaDB
CREATE TABLE `order` (
  `body` varchar(40) COLLATE utf8mb4_bin DEFAULT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_520_ci;
INSERT INTO `order` VALUES ('CREATE DEFINER=`row`@`%` COLLATE row_ci'),
('CREATE DEFINER=`row`@`%`');
/*!50003 SET collation_connection  = utf8mb4_uca1400_ai_ci */ ;
/*!50003 CREATE*/ /*!50017 DEFINER=`gone`@`10.0.0.%`*/ /*!50003 TRIGGER `t` BEFORE INSERT ON `a`
/*!50106 CREATE*/ /*!50117 DEFINER=`gone`@`%`*/ /*!50106 EVENT `e` ON SCHEDULE EVERY 1 DAY DO
CREATE DEFINER=`dba`@`localhost` PROCEDURE `p`()
  SET @statement = 'CREATE DEFINER=`gone`@`%` VIEW v COLLATE';
/*!50013 DEFINER=`root`@`localhost` SQL SECURITY DEFINER */
-- Dump completed on 2026-11-30 14:17:05

"""
HISTORY = b"/*!101100 SET system_versioning_insert_history=1 */"
DEFINERS = {b"`gone`@`10.0.0.%`", b"`gone`@`%`", b"`dba`@`localhost`", b"`root`@`localhost`"}
COLLATIONS = {b"utf8mb4_bin", b"utf8mb4_unicode_520_ci", b"utf8mb4_uca1400_ai_ci"}


class FakeSession:
    """The answers of a server that accepts statements of 1 MiB."""

    def query(self, statement):
        """Return the limit, or the collations as MariaDB lists them."""
        if "@@version" in statement:
            return [["10.11.14-MariaDB"]]
        if "max_allowed_packet" in statement:
            return [[str(1 << 20)]]
        return [["utf8mb4_bin"], ["utf8mb4_unicode_520_ci"], ["uca1400_ai_ci"]]


@pytest.fixture
def dump(tmp_path):
    """Return a function that writes a compressed dump."""

    def dump(text):
        path = tmp_path / "dump.sql.gz"
        path.write_bytes(gzip.compress(text))
        return path

    return dump


def test_a_dump_is_read_without_its_rows(dump):
    found = restore.inspect(dump(DUMP))
    assert (found["name"], found["definers"], found["collations"]) == (
        b"shop",
        DEFINERS,
        COLLATIONS,
    )
    restore.check(FakeSession(), dump(DUMP), "shop", found)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (DUMP.replace(b"Database: shop", b"Database: other"), "is of other"),
        (DUMP.replace(b"utf8mb4_bin", b"utf8mb4_0900_ai_ci"), "lacks: utf8mb4_0900_ai_ci"),
        (
            DUMP.replace(b"10.11", b"11.8").replace(b"/*!50106 CREATE*/", HISTORY),
            "system-versioned",
        ),
        (DUMP.replace(b"('CREATE", b"('" + b"x" * 2**20), "accepts rows of 1 MiB"),
        (DUMP.partition(b"-- Dump")[0], "is incomplete"),
    ],
)
def test_a_dump_that_the_server_cannot_load_is_rejected(dump, text, reason):
    path = dump(text)
    with pytest.raises(ValidationError, match=reason):
        restore.check(FakeSession(), path, "shop", restore.inspect(path))


def test_a_damaged_dump_is_rejected(dump):
    path = dump(DUMP)
    whole = path.read_bytes()
    for content in (
        whole[:-20],
        DUMP,
        whole[:10] + b"\xff\xff" + whole[12:],
        whole[:-8] + b"12345678",
    ):
        path.write_bytes(content)
        with pytest.raises(ValidationError, match="is damaged"):
            restore.inspect(path)


def test_definers_that_are_no_accounts_are_replaced(dump, tmp_path, program, tools):
    program("mariadb", f"#!/bin/sh\ncat >{tmp_path}/loaded\n")
    accounts = {b"`root`@`localhost`", b"`dba`@`localhost`"}
    path = dump(b"/*M!999999\\- enable the sandbox mode */ \n" + DUMP)
    restore.load((str(tools / "mariadb"), "", 0), "shop", path, accounts, b"`shop_migrate`@`%`")
    expected = DUMP.replace(b"`gone`@`10.0.0.%`", b"`shop_migrate`@`%`")
    event = b"/*!50117 DEFINER="
    expected = expected.replace(event + b"`gone`@`%`", event + b"`shop_migrate`@`%`")
    assert (tmp_path / "loaded").read_bytes() == expected


def test_an_error_of_the_client_is_reported_without_its_statement(dump, program, tools):
    program("mariadb", "#!/bin/sh\nprintf 'INSERT \\377\\n\\nERROR 1153\\n' >&2; exit 1\n")
    with pytest.raises(mysql.DatabaseError, match=r"^ERROR 1153$"):
        restore.load((str(tools / "mariadb"), "", 0), "shop", dump(DUMP), set(), b"")


def test_a_missing_dump_is_reported_with_the_others(dump, tmp_path):
    dump(DUMP)
    params = {"folder": str(tmp_path), "dump": "", "name": "shop", "source": "app-1"}
    with pytest.raises(ValidationError, match=r"There are: dump\.sql\.gz\. Copy it from app-1"):
        restore.restore_dump(params)
