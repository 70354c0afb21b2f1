"""/openapi.json, and every bound in it, tried."""
from decimal import Decimal

import re

from costd_support import SMALL, Costd, check, equal, run, run_costd

# What a field needs beside it, to be accepted at its bounds.
BESIDE = {"max_tokens": {"echo": True}, "best_of": {}}


def refer(document, schema):
    while "$ref" in schema:
        at = document
        for name in schema["$ref"].removeprefix("#/").split("/"):
            at = at[name]
        schema = at
    return schema


def references_lead_somewhere(document, node=None):
    node = document if node is None else node
    if isinstance(node, dict):
        if "$ref" in node:
            refer(document, node)
        for value in node.values():
            references_lead_somewhere(document, value)
    elif isinstance(node, list):
        for value in node:
            references_lead_somewhere(document, value)


def try_field(server, path, name, schema):
    """Returns how many values were tried."""
    low, high = schema["minimum"], schema["maximum"]
    inside = [low, high, None]
    outside = [low - 1, high + 1, 10**30, -10**30, "1", True, [], {}]
    if "integer" in schema["type"]:
        outside += [low + 0.5 if low + 0.5 != low else 0.5]
        inside += [low + 1]
    else:
        inside += [(low + high) / 2]  # the bounds may stand for "off", which unknown_fields.c allows for any field
    for value in inside + outside:
        fields = {"prompt": "a", **({} if name == "max_tokens" else {"max_tokens": 1})}
        if "completions" in path:
            fields.update(BESIDE.get(name, {}))
        fields[name] = float(value) if isinstance(value, Decimal) else value
        reply = server.post(path, fields)
        good = value in inside and value is not True
        # Within its bounds, but the model has fewer slots: the document says so.
        if name in ("n", "best_of") and value == high:
            check("concurrently" in schema["description"] and "concurrently" in reply.error["message"], reply.body)
            continue
        if name == "min_tokens" and value == high:
            check("at most max_tokens" in schema["description"] and "max_tokens" in reply.error["message"], reply.body)
            continue
        equal(reply.status, 200 if good else 400, (path, name, value, reply.body))
        if not good:
            equal(reply.error["param"], name, (path, name, value))
    return len(inside) + len(outside)


def every_bound_holds():
    with Costd("--model", "small=" + SMALL) as server:
        reply = server.get("/openapi.json")
        document = reply.json
        equal((reply.status, document["openapi"]), (200, "3.1.0"))
        references_lead_somewhere(document)
        names = [o["operationId"] for item in document["paths"].values() for o in item.values()]
        equal(len(names), len(set(names)))
        n_fields = 0
        for path, item in document["paths"].items():
            for method, operation in item.items():
                where = path.replace("{model}", "small")
                reply = server.ask(method.upper(), where, {} if "requestBody" in operation else None)
                check(reply.status not in (404, 405), "no such route:", method, path)
                body = operation.get("requestBody")
                if not body:
                    continue
                for name in body["content"]["application/json"]["schema"].get("required", []):
                    if path.startswith("/v1") or "tokenize" in path:
                        equal(server.ask(method.upper(), where, {}).status, 400, (path, name))
                for name, schema in body["content"]["application/json"]["schema"]["properties"].items():
                    if "minimum" in schema:
                        try_field(server, where, name, schema)
                        n_fields += 1
        check(n_fields >= 20, n_fields)

        for path in ("/v1/generate/small", "/v1/completions"):
            properties = document["paths"][path.replace("small", "{model}")]["post"]["requestBody"]["content"][
                "application/json"]["schema"]["properties"]
            stop = refer(document, {"$ref": "#/components/schemas/Stop"})
            most = [s for s in properties["stop"]["oneOf"] if "maxItems" in s][0]["maxItems"]
            bias = properties["logit_bias"]
            for fields, status in (({"stop": "x" * stop["maxLength"]}, 200), ({"stop": "x"}, 200), ({"stop": ""}, 400),
                                   ({"stop": "x" * (stop["maxLength"] + 1)}, 400), ({"stop": ["x"] * most}, 200),
                                   ({"stop": ["x"] * (most + 1)}, 400), ({"stop": None}, 200),
                                   ({"logit_bias": {str(i): 0 for i in range(bias["maxProperties"])}}, 200),
                                   ({"logit_bias": {str(i): 0 for i in range(bias["maxProperties"] + 1)}}, 400),
                                   ({"logit_bias": {"1": 100, "2": -100}}, 200), ({"logit_bias": {"1": 101}}, 400),
                                   ({"logit_bias": {"1": -101}}, 400), ({"logit_bias": None}, 200)):
                equal(server.post(path, {"prompt": "a", "max_tokens": 1, **fields}).status, status, (path, fields))


def the_document_and_the_manual_have_the_same_routes():
    with Costd("--model", "small=" + SMALL) as server:
        paths = server.get("/openapi.json").json["paths"]
    written = {(method.upper(), path) for path, item in paths.items() for method in item}
    for item in paths.values():
        for operation in item.values():
            check(operation["summary"] and operation["operationId"], operation)
            for status, answer in operation["responses"].items():
                check("$ref" in answer or (status[0] == "2" and answer["description"] == "Success"), status, answer)
    _, manual, _ = run_costd("--help")
    section = manual.split("\nROUTES\n")[1].split("\n\n")[0]
    printed = set(re.findall(r"^  ([A-Z]+) (/\S*)", section, re.M))
    equal(printed, written)


def the_manual_has_straight_columns():
    """Also where a flag's argument has characters of several bytes."""
    _, manual, _ = run_costd("--help")
    for line in manual.splitlines():
        check(len(line) <= 103, line)
        row = re.match(r"  (--[a-z-]+(?: \S+)?) +\S", line)
        if row:
            equal(row.end(), 34, line)


if __name__ == "__main__":
    run(every_bound_holds, the_document_and_the_manual_have_the_same_routes, the_manual_has_straight_columns)
