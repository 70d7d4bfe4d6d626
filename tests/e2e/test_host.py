"""The local host as its user meets it: a process, its first lines, its signals."""

from __future__ import annotations

import asyncio
import shutil
import signal
import stat
from pathlib import Path

import aiohttp
import pytest

from tests.e2e.harness import ROOT, hosting, start

CHAT = "/v1/chat/completions"
HELLO = {"model": "auto", "messages": [{"role": "user", "content": "Hello"}]}

SEED = ROOT / "tests" / "catalog" / "data" / "model_config.yaml"


async def test_the_first_lines_say_all_one_needs(tmp_path: Path) -> None:
    """Where it is, where the key is, that the simulator answers, and a command that works when pasted."""
    async with hosting(tmp_path) as host:
        key = tmp_path / ".switchyard" / "admin-key"

        assert host.url in host.lines.splitlines()[0]
        assert ".switchyard/admin-key" in host.lines
        assert "SIMULATOR" in host.lines
        assert 0o600 == stat.S_IMODE(key.stat().st_mode)
        if shutil.which("curl"):
            command = host.lines[host.lines.index("curl") :]
            process = await asyncio.create_subprocess_shell(
                command, cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
            )
            answer, _ = await asyncio.wait_for(process.communicate(), 20)
            assert b'"object":"chat.completion"' in answer


async def test_a_key_from_the_environment_is_not_written_anywhere(tmp_path: Path) -> None:
    """Who brings a key keeps it; the printed command takes it from the environment."""
    async with hosting(tmp_path, SWITCHYARD_ADMIN_KEY="a-key-of-my-own-0123456789") as host:
        headers = {"api-key": "a-key-of-my-own-0123456789"}
        async with host.session.post(host.url + CHAT, json=HELLO, headers=headers) as response:
            assert response.status == 200
        assert "a-key-of-my-own" not in host.lines
        assert "$SWITCHYARD_ADMIN_KEY" in host.lines
        assert not (tmp_path / ".switchyard" / "admin-key").exists()


async def test_the_seeds_catalog_and_its_own_performance_cases(tmp_path: Path) -> None:
    """The original model_config.yaml, unchanged, through the original requests."""
    cases = {
        "code-generation": ("Write a Python function to sort a list", {"code-davinci-002", "gpt-4"}),
        "summarization": ("Summarize this article about climate change", {"gpt-3.5-turbo", "gpt-4"}),
        "embeddings": ("Convert this text to embeddings", {"text-embedding-ada-002"}),
    }
    async with hosting(tmp_path, SWITCHYARD_CATALOG=str(SEED), SWITCHYARD_ALLOW_ANONYMOUS="1") as host:
        for task, (prompt, expected) in cases.items():
            body = {"prompt": prompt, "task_type": task}
            async with host.session.post(host.url + "/v1/completions", json=body) as response:
                result = await response.json()
            assert response.status == 200, result
            assert result["model_used"] in expected
            assert f"{result['cost']:.4f}" != "0.0000" or task == "embeddings"
            assert result["latency_ms"] < 1_000
        async with host.session.get(host.url + "/v1/models", headers={"api-key": host.key}) as response:
            models = {model["name"]: model for model in (await response.json())["models"]}
        assert {"gpt-4", "gpt-3.5-turbo", "llama-2-70b", "text-embedding-ada-002", "code-davinci-002"} == set(models)
        assert models["gpt-4"]["cost"] == {"input_per_1k": 0.03, "output_per_1k": 0.06}
        assert models["gpt-4"]["quality_score"] == 0.95


async def test_a_changed_catalog_serves_within_a_second_and_a_broken_one_does_not(tmp_path: Path) -> None:
    """The old snapshot serves on while the new file is wrong, and health says so to the administrator."""
    catalog = tmp_path / "models.yaml"
    catalog.write_text(SEED.read_text())
    async with hosting(tmp_path, SWITCHYARD_CATALOG=str(catalog)) as host:
        assert (await host.call("GET", "/v1/models/gpt-4"))[1]["quality_score"] == 0.95
        catalog.write_text(SEED.read_text().replace("quality_score: 0.95", "quality_score: 0.91"))
        await asyncio.sleep(1)
        assert (await host.call("GET", "/v1/models/gpt-4"))[1]["quality_score"] == 0.91

        catalog.write_text(SEED.read_text().replace("quality_score: 0.95", "quality_score: high"))
        await asyncio.sleep(1)
        health = (await host.call("GET", "/v1/health"))[1]
        assert (await host.call("POST", CHAT, {**HELLO, "model": "gpt-4"}))[0] == 200
        assert (await host.call("GET", "/v1/models/gpt-4"))[1]["quality_score"] == 0.91
        assert health["status"] == "degraded"
        assert "quality_score" in str(health["catalog_problems"])

        catalog.write_text(SEED.read_text())
        await asyncio.sleep(1)
        assert (await host.call("GET", "/v1/health"))[1]["status"] == "healthy"


async def test_what_was_written_survives_a_kill(tmp_path: Path) -> None:
    """After kill -9 keys, registrations and usage are there again."""
    async with hosting(tmp_path, SWITCHYARD_CATALOG=str(SEED)) as host:
        made = (await host.call("POST", "/v1/keys", {"name": "app", "project": "shop"}))[1]
        async with host.session.post(host.url + CHAT, json=HELLO, headers={"api-key": made["key"]}) as response:
            request_id = response.headers["x-request-id"]
        assert (await host.call("GET", "/v1/usage"))[1]["data"][0]["requests"] == 1
        assert await host.stop(signal.SIGKILL) == -signal.SIGKILL
    async with hosting(tmp_path, SWITCHYARD_CATALOG=str(SEED)) as host:
        async with host.session.get(host.url + f"/v1/requests/{request_id}", headers={"api-key": made["key"]}) as response:
            stored = await response.json()
        assert stored["project"] == "shop"
        assert stored["attempts"][0]["outcome"] == "succeeded"


async def test_a_stop_lets_what_is_in_flight_finish_and_writes_it_down(tmp_path: Path) -> None:
    """SIGTERM: the request in flight is answered, its usage is in the store, the exit code is 0."""
    script = {"model": "gpt-3.5-turbo", "messages": [{"role": "user", "content": "word " * 800}]}
    async with hosting(tmp_path, SWITCHYARD_CATALOG=str(SEED)) as host:
        pending = [asyncio.create_task(host.call("POST", CHAT, script)) for _ in range(50)]
        await asyncio.sleep(0.05)
        code = await host.stop()
        answers = await asyncio.gather(*pending, return_exceptions=True)
    answered = sum(isinstance(answer, tuple) and answer[0] == 200 for answer in answers)
    async with hosting(tmp_path, SWITCHYARD_CATALOG=str(SEED)) as host:
        usage = (await host.call("GET", "/v1/usage"))[1]["data"][0]

    assert code == 0
    assert answered >= 1
    assert usage["requests"] == answered


async def test_a_client_killed_in_mid_request_leaves_the_host_well(tmp_path: Path) -> None:
    """Connections cut in the middle are cancelled requests, not errors."""
    async with hosting(tmp_path, SWITCHYARD_CATALOG=str(SEED)) as host:
        port = int(host.url.rsplit(":", 1)[1])
        body = b'{"stream": true, "messages": [{"role": "user", "content": "Hello"}]}'
        for _ in range(20):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\napi-key: {host.key}\r\ncontent-length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            await writer.drain()
            writer.transport.abort()
        assert (await host.call("POST", CHAT, HELLO))[0] == 200
        async with asyncio.timeout(30):  # a request that was cut is ended when the host next looks at its connection
            while (await host.call("GET", "/v1/metrics"))[1]["queue"]["in_flight"]:
                await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"SWITCHYARD_CATALOG": "nowhere.yaml"}, "nowhere.yaml"),
        ({"SWITCHYARD_ADMIN_KEY": "short"}, "SWITCHYARD_ADMIN_KEY"),
        ({"SWITCHYARD_STORAGE": "postgres://x"}, "SWITCHYARD_STORAGE"),
        ({"PORT": "eighty"}, "PORT"),
    ],
)
async def test_a_wrong_setting_ends_the_start_with_what_to_do(tmp_path: Path, settings: dict[str, str], said: str) -> None:
    """Exit code 2, one message that names the setting, no stack."""
    process = await start(tmp_path, settings)
    _, errors = await asyncio.wait_for(process.communicate(), 30)

    assert process.returncode == 2
    assert said in errors.decode()
    assert "Traceback" not in errors.decode()


async def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    """With what to set."""
    async with hosting(tmp_path) as host:
        process = await start(tmp_path, {"PORT": host.url.rsplit(":", 1)[1]})
        _, errors = await asyncio.wait_for(process.communicate(), 30)

        assert process.returncode == 2
        assert "Set HOST and PORT" in errors.decode()


async def test_credentials_switch_the_simulator_off(tmp_path: Path) -> None:
    """One provider with a key is enough; its key shows nowhere."""
    async with hosting(tmp_path, OPENAI_API_KEY="sk-canary-0123456789", OPENAI_BASE_URL="http://127.0.0.1:9/v1") as host:
        assert "SIMULATOR" not in host.lines
        assert "openai" in host.lines
        assert "canary" not in host.lines
        async with aiohttp.ClientSession(headers={"api-key": host.key}) as session:
            for path in ("/v1/health", "/v1/models", "/v1/metrics"):
                async with session.get(host.url + path) as response:
                    assert "canary" not in await response.text()
            async with session.post(host.url + CHAT, json=HELLO) as response:
                assert response.status == 503
                assert "canary" not in await response.text()
                assert "x-switchyard-simulated" not in response.headers
