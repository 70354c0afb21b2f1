"""The routes that costd serves, those of /openapi.json and those of --help are the same ones."""
import pathlib
import re
import subprocess

from costd_support import COSTD, SMALL, SOURCE, Costd, check, run

PAGE = "the built-in page's own"
UNDOCUMENTED = {
    ("GET", "/"): PAGE, ("GET", "/page/{model}"): PAGE, ("GET", "/api/history"): PAGE, ("GET", "/api/recent"): PAGE,
}


def named(method, path):
    """One spelling of a path's argument: "/v1/models/", "/v1/models/NAME" and "/v1/models/{model}" are one."""
    return method.upper(), re.sub(r"(?<=.)/(NAME|\{\w+\})?$", "/{model}", path)


def compare(where, routes, wanted):
    wrong = [f"{where} lacks {' '.join(route)}" for route in sorted(wanted - routes)]
    return wrong + [f"{where} has {' '.join(route)}, which is not served" for route in sorted(routes - wanted)]


def every_route_is_documented():
    table = (pathlib.Path(SOURCE) / "apps/costd/api/routes.c").read_text()
    # Rows without a method answer any with 404 and a hint; they are not routes.
    served = [named(*row) for row in re.findall(r'\{\s*"([A-Z]+)",\s*"(/[^"]*)"', table)]
    check(len(served) > 15 and len(served) == len(set(served)), served)
    stale = sorted(set(UNDOCUMENTED) - set(served))
    check(not stale, "exceptions that are not served:", stale)
    wanted = set(served) - set(UNDOCUMENTED)

    with Costd("--model", "small=" + SMALL) as server:
        document = {named(method, path) for path, item in server.get("/openapi.json").json["paths"].items()
                    for method in item}
        # The rows are what the program answers.
        for method, path in served:
            reply = server.ask(method, path.replace("{model}", "start.js" if path.startswith("/page/") else "small"))
            check(reply.status not in (404, 405), method, path, reply.status)
    manual = subprocess.run([COSTD, "--help"], stdout=subprocess.PIPE, text=True, check=True).stdout
    part = re.search(r"^ROUTES\n(.*?)^[A-Z]", manual, re.S | re.M)[1]
    listed = {named(*row) for row in re.findall(r"\b(GET|POST|PUT|DELETE) +(/[\w/{}.]*)", part)}
    wrong = compare("/openapi.json", document, wanted)
    # "GET / shows the costs in a browser" is the page's.
    wrong += compare("--help", listed - {("GET", "/")}, wanted)
    check(not wrong, "\n".join(wrong))


if __name__ == "__main__":
    run(every_route_is_documented)
