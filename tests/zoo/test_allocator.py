"""Freed memory stays with the process that asked for it."""

import subprocess
import sys

import pytest

_PROGRAM = """
import resource
import numpy as np
from zoo.allocator import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        # Each of both is freed while the other lives, as activations are.
        first = np.ones(1 << 20)
        second = first + 1.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def first_and_later():
    faults()
    return faults()

plain = first_and_later()
told = keep_freed_memory()
print(told, plain, first_and_later())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of glibc")
def test_freed_memory_costs_no_page_faults_again():
    result = subprocess.run(
        [sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True
    )
    told, plain, kept = result.stdout.split()
    if told == "False":
        pytest.skip("another C library")
    # 20 rounds of two arrays of 2,048 pages each; those of the system may be larger, if it likes.
    assert int(kept) < 20 < int(plain)
