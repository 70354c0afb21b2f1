"""The wheel is pure Python and uses the installed libcostinfer.  With COSTINFER_BUNDLE=/path/libcostinfer.so.0
in the environment that library goes into the wheel, which is then one for this platform."""
import os
import pathlib
import shutil

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.dist import Distribution

bundle = os.environ.get("COSTINFER_BUNDLE")


class Build(build_py):
    def run(self):
        super().run()
        target = pathlib.Path(self.build_lib, "costinfer", "libcostinfer.so.0")
        target.unlink(missing_ok=True)
        if bundle:
            shutil.copyfile(bundle, target)


class Platform(Distribution):
    def has_ext_modules(self):
        return bool(bundle)


setup(cmdclass={"build_py": Build}, distclass=Platform)
