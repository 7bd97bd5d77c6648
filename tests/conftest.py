"""Settings of all tests."""

import os

import torch

import florence_mm  # noqa: F401  its mends come before any other package is imported, whichever test runs first

# small models gain nothing from threads, and two busy pools of threads on two cores wait for each other
THREADS = os.environ.get('FLORENCE_MM_TEST_THREADS', '1')
torch.set_num_threads(int(THREADS))
os.environ.setdefault('OMP_NUM_THREADS', THREADS)  # of the processes that tests start
