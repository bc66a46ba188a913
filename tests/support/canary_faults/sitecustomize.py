"""Makes versions of a served line fail or take longer, as FAULTS says: a JSON file {NUMBER: {"fail": SHARE} or {"slow":
SECONDS}}, read at each image. Python imports this module at the start of every process whose PYTHONPATH names its
folder; nothing happens until a replica imports `flows.serve.found`."""

import importlib.abc
import importlib.machinery
import json
import os
import random
import sys
import time
from pathlib import Path

MODULE = "flows.serve.found"


class Faults(importlib.abc.MetaPathFinder):
    """Wraps `find` of the module once it is loaded."""

    def find_spec(self, name, path, target=None):
        if name != MODULE:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            find = module.find

            def faulty(version, *rest):
                fault = json.loads(Path(os.environ["FAULTS"]).read_text()).get(str(version.number), {})
                if random.random() < fault.get("fail", 0.0):
                    raise RuntimeError("a fault on purpose")
                begun = time.perf_counter()
                found = find(version, *rest)
                time.sleep(fault.get("slow", 0.0))
                return type(found)(*[getattr(found, name) for name in ("version", "proposals", "instances")],
                                   time.perf_counter() - begun)  # fmt: skip

            module.find = faulty

        spec.loader.exec_module = exec_module
        return spec


if "FAULTS" in os.environ:
    sys.meta_path.insert(0, Faults())
