"""Checks the Go binding with the installed library: gofmt, go vet, and its tests, including the shared scenario."""
from packaging_support import SOURCE, Installed, need, run

need("go", "gcc", "pkg-config")
with Installed() as here:
    tree = here.go_binding()
    env = here.env(COSTINFER_MODELS=str(here.models), CGO_ENABLED="1", GOFLAGS="-mod=mod", GOPROXY="off",
                   GOTOOLCHAIN="local", COSTINFER_SCENARIO=str(SOURCE / "tests/conformance/scenario.json"))
    assert run("gofmt", "-l", tree) == "", "gofmt would change these files"
    run("go", "vet", "./...", cwd=tree, env=env)
    out = run("go", "test", "-count=1", "-v", "./...", cwd=tree, env=env)
    print(out.count("--- PASS"), "tests pass")
    assert "--- SKIP" not in out, out
