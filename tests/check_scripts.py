"""The scripts delete and overwrite nothing that is not theirs, where a user names a folder or keeps files."""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

SOURCE = pathlib.Path(os.environ.get("CINF_SOURCE", pathlib.Path(__file__).resolve().parents[1]))


def run(*command, cwd=SOURCE):
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def texts(folder):
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


def an_environment_of_others_stays(folder):
    theirs = folder / "venv"
    (theirs / "bin").mkdir(parents=True)
    for name in ("pyvenv.cfg", "bin/python", "notes"):
        (theirs / name).write_text("precious")
    before = texts(theirs)
    for arguments in ((), ("openai",)):
        code, output = run("scripts/peers_venv.sh", str(theirs), *arguments)
        assert code == 1 and "not made by this script" in output, (code, output)
        assert texts(theirs) == before


def a_release_touches_no_other_files(folder):
    if not (SOURCE / ".git").exists() or not shutil.which("dpkg-buildpackage"):
        print("left out, without a checkout or dpkg-buildpackage:", end=" ")
        return
    checkout = folder / "checkout"
    subprocess.run(["git", "clone", "-q", str(SOURCE), str(checkout)], check=True)
    (checkout / "scripts/release.sh").write_text((SOURCE / "scripts/release.sh").read_text())
    (checkout / "debian/rules").write_text("#!/bin/sh\nexit 1\n")  # nothing is built here
    name = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *name, "commit", "-qam", "as here", "--allow-empty"], cwd=checkout, check=True)
    theirs = (["other_1_all.deb"], ["thesis.tar.gz"], ["SHA256SUMS", ".hidden"], ["costdx_1.deb"])
    for number, names in enumerate(theirs):
        out = folder / f"out{number}"
        out.mkdir()
        for file in names:
            (out / file).write_text("precious")
        before = texts(out)
        code, output = run("scripts/release.sh", str(out), cwd=checkout)
        assert code == 1 and "other files" in output and texts(out) == before, output
    ours = folder / "ours"
    ours.mkdir()
    (ours / "costd_0.0.1_amd64.deb").write_text("an old release")
    code, output = run("scripts/release.sh", str(ours), cwd=checkout)
    assert code == 1 and "do not build" in output and not list(ours.glob("*.deb")), output


def cleaning_names_its_folders(_folder):
    recipe = re.search(r"^clean:\n((?:\t.*\n)+)", (SOURCE / "Makefile").read_text(), re.M)[1]
    assert "build" in recipe and not set("*?[$") & set(recipe), recipe


def main():
    for test in (an_environment_of_others_stays, a_release_touches_no_other_files, cleaning_names_its_folders):
        with tempfile.TemporaryDirectory() as folder:
            test(pathlib.Path(folder))
        print(test.__name__)
    return 0


if __name__ == "__main__":
    sys.exit(main())
