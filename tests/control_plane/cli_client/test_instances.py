"""``slipway ps``, ``show``, ``stop``, ``start``, ``restart``, ``rm`` and ``logs``."""

from __future__ import annotations

import builtins
import json

import pytest

from control_plane.instances.lifecycle import Phase
from tests.control_plane.cli_client.conftest import Slipway
from tests.control_plane.cli_client.world import Engine, Machine, Step, Story


@pytest.fixture
def mine(slipway: Slipway, story: Story, model: str, engine: Engine) -> str:
    """The name of a running instance."""
    story.tell(story.engine_at(engine.url))
    result = slipway("launch", model, "--name", "mine")
    assert result.code == 0, result.err
    return "mine"


def phase(slipway: Slipway, name: str) -> str:
    shown: str = json.loads(slipway("show", name, "--json").out)["phase"]
    return shown


def test_ps(slipway: Slipway, mine: str, model: str) -> None:
    shown = slipway("ps")
    assert (shown.code, shown.err) == (0, "")
    headings, line = shown.out.splitlines()
    assert headings.split() == ["NAME", "MODEL", "PHASE", "FOR", "API", "URL"]
    assert line.split()[:3] == [mine, model, "running"]
    (instance,) = json.loads(slipway("ps", "--json").out)
    assert line.split()[-1] == instance["api_url"]


def test_ps_of_nothing(slipway: Slipway) -> None:
    shown = slipway("ps")
    assert (shown.code, shown.out) == (0, "")
    assert "slipway launch" in shown.err
    assert json.loads(slipway("ps", "--json").out) == []


def test_show_tells_the_story(slipway: Slipway, mine: str) -> None:
    shown = slipway("show", mine)
    assert shown.code == 0
    for part in ("running", "tests/tiny", "local-cpu", "instance.requested", "instance.running", "$0.50/h"):
        assert part in shown.out
    instance = json.loads(slipway("show", mine, "--json").out)
    assert [event["action"] for event in instance["events"]][-1] == "instance.running"
    for other in (instance["id"], instance["slug"]):
        assert json.loads(slipway("show", other, "--json").out)["name"] == mine
    assert slipway("show", "00000000-0000-7000-8000-000000000000").code == 3


def test_stop_start_restart(slipway: Slipway, story: Story, mine: str, engine: Engine) -> None:
    story.tell(story.move(Phase.STOPPED, "stopped"))
    stopped = slipway("stop", mine)
    assert (stopped.code, stopped.out) == (0, "")
    assert stopped.err.splitlines()[-1] == "mine is stopped"

    up = [story.move(phase) for phase in (Phase.PROVISIONING, Phase.STARTING, Phase.RUNNING)]
    story.tell(*up)
    assert slipway("start", mine).err.splitlines()[-1] == "mine is running"

    story.tell(*up[1:], story.renew())
    restarted = slipway("restart", mine, "--mode", "replace")
    assert restarted.err.splitlines()[-1] == "mine is running again"
    assert "provisioning: asked to restart" in restarted.err


def test_a_rolling_restart_ends_when_every_engine_is_new(slipway: Slipway, story: Story, mine: str) -> None:
    def told(reason: str) -> Step:
        return lambda _, instance: setattr(instance, "reason", reason)

    story.tell(told("0 of 1 engines are replaced"), told("still"), story.renew())
    restarted = slipway("restart", mine)
    assert restarted.code == 0, restarted.err
    assert "running: 0 of 1 engines are replaced" in restarted.err
    assert phase(slipway, mine) == "running"
    assert "asked to restart, one engine after another" in slipway("show", mine).out


def test_a_restart_whose_new_engine_does_not_come_up(slipway: Slipway, story: Story, mine: str) -> None:
    story.tell(story.renew(ready=False, restarts=6, last_exit_code=1, started_at=None, condition="exited\nwhy"))
    stuck = slipway("restart", mine)
    assert stuck.code == 1
    assert "is not renewed" in stuck.err
    shown = slipway("show", mine).out
    assert "given up" in shown
    assert "exited" in shown


def test_stop_without_waiting_and_out_of_time(slipway: Slipway, mine: str) -> None:
    late = slipway("stop", mine, "--timeout", "0")
    assert late.code == 5
    assert "still stopping" in late.err
    assert slipway("stop", mine, "--no-wait").code == 0
    assert json.loads(slipway("stop", mine, "--no-wait", "--json").out)["phase"] == "stopping"


def test_an_impossible_wish(slipway: Slipway, mine: str) -> None:
    slipway("rm", mine, "--yes", "--no-wait")
    refused = slipway("stop", mine)
    assert refused.code == 1
    assert "terminating" in refused.err


class TestRm:
    def test_with_yes(self, slipway: Slipway, story: Story, mine: str) -> None:
        story.tell(story.move(Phase.TERMINATED, "gone"))
        gone = slipway("rm", mine, "--yes")
        assert (gone.code, gone.out, gone.err.splitlines()[-1]) == (0, "", "mine is terminated")
        assert json.loads(slipway("ps", "--json").out) == []
        assert [instance["phase"] for instance in json.loads(slipway("ps", "--all", "--json").out)] == ["terminated"]

    def test_nobody_to_ask(self, slipway: Slipway, mine: str) -> None:
        refused = slipway("rm", mine)
        assert refused.code == 2
        assert "--yes" in refused.err
        assert phase(slipway, mine) == "running"

    @pytest.mark.parametrize(("typed", "code", "then"), [("mine", 0, "terminating"), ("yes", 2, "running")])
    def test_asks_for_the_name(self, slipway: Slipway, mine: str, typed: str, code: int, then: str) -> None:
        assert slipway("rm", mine, "--no-wait", typed=f"{typed}\n").code == code
        assert phase(slipway, mine) == then


class TestLogs:
    def test_the_last_lines(self, slipway: Slipway, mine: str, machine: Machine) -> None:
        machine.log = "".join(f"line {number}\n" for number in range(300))
        assert slipway("logs", mine).out.splitlines()[0] == "line 100"
        assert slipway("logs", mine, "--tail", "2").out == "line 298\nline 299\n"
        assert json.loads(slipway("logs", mine, "--tail", "1", "--json").out)["text"] == "line 299\n"

    def test_nothing_yet(self, slipway: Slipway, mine: str) -> None:
        shown = slipway("logs", mine)
        assert (shown.code, shown.out) == (0, "")
        assert "nothing has been logged" in shown.err

    def test_an_escape_sequence_is_disarmed(self, slipway: Slipway, mine: str, machine: Machine) -> None:
        machine.log = "\x1b]0;owned\x07hello\n"
        assert slipway("logs", mine).out == "]0;ownedhello\n"

    def test_following_ends_with_the_instance(
        self, slipway: Slipway, story: Story, mine: str, machine: Machine
    ) -> None:
        machine.log = "first\n"
        story.tell(
            lambda *_: setattr(machine, "log", "first\nsecond\n"),
            story.move(Phase.TERMINATING, "asked to"),
            lambda *_: setattr(machine, "log", "first\nsecond\nlast words\n"),
            story.move(Phase.TERMINATED, "gone"),
        )
        followed = slipway("logs", mine, "-f")
        assert (followed.code, followed.out) == (0, "first\nsecond\nlast words\n")

    def test_following_as_json(self, slipway: Slipway, story: Story, mine: str, machine: Machine) -> None:
        machine.log = "first\n"
        story.tell(story.move(Phase.TERMINATING, "asked to"), story.move(Phase.TERMINATED, "gone"))
        followed = slipway("logs", mine, "-f", "--json")
        assert [json.loads(line)["text"] for line in followed.out.splitlines()] == ["first\n"]

    def test_a_replica_that_is_not_there(self, slipway: Slipway, mine: str) -> None:
        assert slipway("logs", mine, "--replica", "7").code == 3


class TestChat:
    def test_one_question(self, slipway: Slipway, mine: str, engine: Engine, model: str) -> None:
        engine.will_say("Hel", "lo", " \x1b[31mworld")
        answer = slipway("chat", mine, "--message", "hi", "--system", "be kind", "--max-tokens", "9")
        assert (answer.code, answer.out, answer.err) == (0, "Hello [31mworld\n", "")
        (request,) = engine.requests
        assert request["messages"] == [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hi"}]
        assert (request["model"], request["max_tokens"], request["stream"]) == (model, 9, True)
        assert "temperature" not in request

    def test_json(self, slipway: Slipway, mine: str, engine: Engine, model: str) -> None:
        engine.will_say("one", " two", finish_reason="length")
        answer = slipway("chat", mine, "-m", "count", "--json")
        assert json.loads(answer.out) == {
            "model": model,
            "message": "one two",
            "finish_reason": "length",
            "usage": {"prompt_tokens": 3, "completion_tokens": 2},
        }

    def test_from_a_pipe(self, slipway: Slipway, mine: str, engine: Engine) -> None:
        engine.will_say("fine")
        assert slipway("chat", mine, stdin="how are you\nthere?\n").out == "fine\n"
        assert engine.requests[0]["messages"] == [{"role": "user", "content": "how are you\nthere?"}]

    def test_a_conversation_remembers(self, slipway: Slipway, mine: str, engine: Engine) -> None:
        engine.will_say("yes")
        talk = slipway("chat", mine, typed="first\n\nsecond\n")
        assert talk.code == 0
        assert talk.out.count("yes") == 2
        assert [message["content"] for message in engine.requests[1]["messages"]] == ["first", "yes", "second"]

    def test_an_interrupt_that_comes_too_late_does_not_end_the_conversation(
        self, slipway: Slipway, mine: str, engine: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        happens: list[str | type[BaseException]] = [KeyboardInterrupt, "hi", EOFError]

        def at_the_prompt(_: str) -> str:
            event = happens.pop(0)
            if isinstance(event, str):
                return event
            raise event

        monkeypatch.setattr(builtins, "input", at_the_prompt)
        engine.will_say("still here")
        talk = slipway("chat", mine, typed="")
        assert talk.code == 0
        assert "still here" in talk.out

    def test_json_needs_a_message(self, slipway: Slipway, mine: str) -> None:
        assert slipway("chat", mine, "--json", typed="").code == 2

    def test_an_answer_that_breaks_off_is_no_success(self, slipway: Slipway, mine: str, engine: Engine) -> None:
        engine.will_say("half an", finish_reason=None)
        answer = slipway("chat", mine, "-m", "hi")
        assert answer.code == 1
        assert answer.out.startswith("half an")
        assert "broke off" in answer.err

    def test_an_error_in_the_stream(self, slipway: Slipway, mine: str, engine: Engine) -> None:
        engine.lines = ['data: {"error": {"message": "out of blocks", "type": "server_error"}}']
        answer = slipway("chat", mine, "-m", "hi")
        assert answer.code == 1
        assert "out of blocks" in answer.err

    def test_what_the_server_tells_meanwhile(self, slipway: Slipway, mine: str, engine: Engine) -> None:
        engine.will_say("good morning")
        engine.lines.insert(0, ": waking up")
        answer = slipway("chat", mine, "-m", "hi")
        assert (answer.out, answer.err) == ("good morning\n", "waking up\n")

    def test_an_instance_that_does_not_run(self, slipway: Slipway, story: Story, mine: str) -> None:
        story.tell(story.move(Phase.STOPPED, "stopped"))
        slipway("stop", mine)
        answer = slipway("chat", mine, "-m", "hi")
        assert (answer.code, answer.out) == (1, "")
        assert "mine is stopped" in answer.err
        assert "slipway start mine" in answer.err
