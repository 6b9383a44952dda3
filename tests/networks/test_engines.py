"""OpenVINO on this machine: what it offers, and frozen networks without TensorFlow."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from cytology.networks import engines
from cytology.networks.engines import BFLOAT16, OPENVINO, TENSORFLOW, TITLES


@pytest.fixture
def machine(monkeypatch):
    """Pretends that the processor computes in the given types; without any, no OpenVINO."""

    def has(*types):
        core = SimpleNamespace(get_property=lambda device, name: list(types)) if types else None
        monkeypatch.setattr(engines, "core", lambda: core)

    return has


@pytest.mark.parametrize(
    ("types", "expected"),
    [((), ()), (("FP32", "INT8"), (OPENVINO,)), (("FP32", "BF16"), (OPENVINO, BFLOAT16))],
)
def test_bfloat16_is_offered_if_the_processor_supports_it(machine, monkeypatch, types, expected):
    machine(*types)
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    assert engines.available_engines() == expected
    assert engines.processor()  # names the trial's file, also without OpenVINO


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("AVX2", (OPENVINO,)), ("sse41", (OPENVINO,)), ("AVX512_CORE", (OPENVINO, BFLOAT16))],
)
def test_a_processor_limited_below_avx512_offers_no_bfloat16(machine, monkeypatch, limit, expected):
    machine("FP32", "BF16")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert engines.available_engines() == expected


def test_without_the_package_nothing_is_offered(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)  # as if it were not installed
    monkeypatch.setattr(engines, "core", engines.core.__wrapped__)
    assert engines.core() is None and engines.available_engines() == ()


@pytest.mark.parametrize(
    ("used", "types", "expected"),
    [
        (TENSORFLOW, (), TENSORFLOW),
        (OPENVINO, ("FP32",), OPENVINO),
        (OPENVINO, (), TENSORFLOW),
        (BFLOAT16, ("FP32", "BF16"), BFLOAT16),
        (BFLOAT16, ("FP32",), TENSORFLOW),
    ],
)
def test_the_engine_of_a_run_or_tensorflow_with_a_note_is_used(
    machine, monkeypatch, capsys, used, types, expected
):
    machine(*types)
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    assert engines.engine_here({"engine": used, "architecture": "inceptionv3"}) == expected
    told = capsys.readouterr().out
    if used == expected:
        assert told == ""
    else:
        assert told.count("\n") == 1
        assert f"this run used {TITLES[used]} for inceptionv3" in told
        assert "TensorFlow is used instead" in told


def test_a_run_of_tensorflow_does_not_even_look_for_openvino(monkeypatch):
    monkeypatch.setattr(engines, "core", None)
    assert engines.engine_here({"engine": TENSORFLOW}) == TENSORFLOW


def test_openvino_sends_no_telemetry(tmp_path):
    """Its telemetry package creates a folder with a user id at the first import."""
    pytest.importorskip("openvino")
    code = """
from cytology.networks import engines
assert engines.core() is not None
from openvino.tools.ovc import telemetry_utils
print(telemetry_utils.tm.__name__)
"""
    homes = {name: str(tmp_path) for name in ("HOME", "USERPROFILE", "APPDATA", "LOCALAPPDATA")}
    environment = {key: value for key, value in os.environ.items() if key != "CI"} | homes
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    told = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert told.stdout.strip() == "openvino.tools.ovc.telemetry_stub"
    assert not list(tmp_path.iterdir())
