"""Checkpoints from the web and from the hub: in each public layout, kept where they belong, and every refusal."""

import hashlib
import shutil
import urllib.request

import huggingface_hub
import pytest
import torch
from small_unicl import unicl
from web_server import web_server

from florence_mm.errors import UsageError
from florence_mm.models.checkpoints import read_checkpoint
from florence_mm.models.checkpoints.fetching import fetch
from florence_mm.models.checkpoints.hub import hub_file, split_address
