"""Server commands as a person types them: what goes wrong is one line, a next step and an exit code."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from control_plane.clock import SYSTEM_CLOCK
from control_plane.database import Database
from control_plane.migrate import check
from control_plane.processes.heartbeat import Heart
from control_plane.processes.tables import ProcessKind
from tests.support.clock import FakeClock


def slipway(*argv: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SLIPWAY_", "HF_"))}
    return subprocess.run(
        [str(Path(sys.executable).parent / "slipway"), *argv],
        cwd=cwd,
        env=clean | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("argv", "environment", "code", "says"),
    [
        (["up", "--port", "0"], {}, 2, "--port"),
        (["up", "--host", "192.0.2.1"], {}, 2, "192.0.2.1"),
        (["status"], {"SLIPWAY_PORT": "many"}, 2, "SLIPWAY_PORT"),
        (["openapi"], {"SLIPWAY_PROVIDERS": "local,clouds"}, 3, "clouds"),
        (["down"], {}, 3, "slipway up --data"),
        (["status"], {}, 3, "slipway up --data"),
        (["migrate"], {"SLIPWAY_DATABASE_URL": "postgresql:///x?host=/nowhere"}, 1, "SLIPWAY_DATABASE_URL"),
        (["up"], {"SLIPWAY_DATABASE_URL": "nonsense"}, 1, "SLIPWAY_DATABASE_URL"),
        (["no-such-command"], {}, 2, "no-such-command"),
    ],
)
def test_what_cannot_be_is_said_in_words(
    tmp_path: Path, *, argv: list[str], environment: dict[str, str], code: int, says: str
) -> None:
    result = slipway(*argv, cwd=tmp_path, **environment)
    assert result.returncode == code, result.stderr
    assert says in result.stderr
    assert "Traceback" not in result.stderr


def test_a_broken_configuration_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "slipway.toml").write_text("port = [")
    result = slipway("status", cwd=tmp_path)
    assert result.returncode == 2
    assert "slipway.toml" in result.stderr


def test_flags_win_over_the_file_and_the_file_over_the_environment(tmp_path: Path) -> None:
    (tmp_path / "slipway.toml").write_text('data_dir = "from-file"')
    by_file = slipway("status", cwd=tmp_path, SLIPWAY_DATA_DIR="from-environment").stderr
    by_flag = slipway("status", "--data", "from-flag", cwd=tmp_path).stderr
    assert "from-file" in by_file
    assert "from-flag" in by_flag


def test_migrate_brings_a_new_database_up_to_date(tmp_path: Path) -> None:
    result = slipway("migrate", "--json", cwd=tmp_path)
    assert json.loads(result.stdout) == {"migrated": True}
    check(f"sqlite:///{tmp_path}/data/slipway.db")


def test_each_set_up_link_replaces_the_one_before(tmp_path: Path) -> None:
    first, second = (json.loads(slipway("setup-link", "--json", cwd=tmp_path).stdout)["setup_url"] for _ in range(2))
    assert first.startswith("http://127.0.0.1:8000/setup?token=")
    assert first != second


def test_doctor_fails_only_for_what_must_be_fixed(tmp_path: Path) -> None:
    offline = {"HF_HUB_OFFLINE": "1", "SLIPWAY_DATA_DIR": "data"}
    healthy = slipway("doctor", "--json", cwd=tmp_path, **offline)
    verdicts = {finding["what"]: finding["verdict"] for finding in json.loads(healthy.stdout)}
    assert healthy.returncode == 0, verdicts
    assert verdicts["data folder"] == verdicts["setpriv"] == verdicts["model hub"] == "ok"
    assert verdicts["slipway up"] == verdicts["worker"] == "warn"

    (tmp_path / "file").write_text("")
    broken = slipway("doctor", cwd=tmp_path, **offline | {"SLIPWAY_BROKER_URL": "redis://127.0.0.1:1/0"})
    assert broken.returncode == 1
    assert "fail  broker" in broken.stdout
    assert "SLIPWAY_BROKER_URL" in broken.stdout


def test_openapi_describes_the_api(tmp_path: Path) -> None:
    result = slipway("openapi", cwd=tmp_path)
    assert "/api/v1/instances" in json.loads(result.stdout)["paths"]


def test_doctor_tells_of_processes_that_went_silent(tmp_path: Path) -> None:
    offline = {"HF_HUB_OFFLINE": "1", "SLIPWAY_DATA_DIR": "data"}
    slipway("migrate", cwd=tmp_path)
    database = Database(f"sqlite:///{tmp_path}/data/slipway.db")
    long_ago = FakeClock()
    long_ago.jump((SYSTEM_CLOCK.now() - long_ago.now()).total_seconds() - 95)
    Heart(database, long_ago, ProcessKind.WORKER).beat()
    Heart(database, SYSTEM_CLOCK, ProcessKind.WEB).beat()
    database.engine.dispose()
    found = {
        finding["what"]: finding for finding in json.loads(slipway("doctor", "--json", cwd=tmp_path, **offline).stdout)
    }
    assert re.search(r"worker@\S+ was last seen (9[5-9]|1\d\d) s ago", found["processes"]["detail"])
    assert "no scheduler is alive" in found["processes"]["detail"]
    assert found["waiting rows"]["verdict"] == "ok"
