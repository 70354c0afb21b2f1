"""PromQL as a tree: as much of the language as dashboards and rules use, so that they can be judged.

Nodes know where they stand in the source, so that a part can be asked for by itself."""
import re

AGGREGATIONS = {"sum", "min", "max", "avg", "count", "group", "topk", "bottomk", "quantile", "stddev"}
PRECEDENCE = {"or": 1, "and": 2, "unless": 2, "==": 3, "!=": 3, ">": 3, "<": 3, ">=": 3, "<=": 3, "+": 4, "-": 4,
              "*": 5, "/": 5, "%": 5, "^": 6}
COMPARISONS = {op for op, p in PRECEDENCE.items() if p == 3}
TOKEN = re.compile(r"""\s*(?:(?P<string>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')|(?P<range>\[[^\]]*\])
                        |(?P<number>0?\$\w+|\d+(?:\.\d+)?(?:[eE][+-]?\d+)?(?:[smhdwy])?)|(?P<name>[A-Za-z_:][\w:]*)
                        |(?P<op>==|!=|>=|<=|=~|!~|[-+*/%^<>=(){},]))""", re.X)


class Node:
    """kind: number, string, selector, call, sum (any aggregation), op.

    name: the metric, function, aggregation or operator; args: parts; range: "5m" or None; matchers: {label: (op,
    value)}; by: labels that are kept, or None; matching: None or ("on"|"ignoring", labels)."""

    def __init__(self, kind, name, start, **more):
        self.kind, self.name, self.start, self.end = kind, name, start, start
        self.args, self.range, self.matchers, self.by, self.without, self.matching = [], None, {}, None, None, None
        self.__dict__.update(more)

    def walk(self, parents=()):
        yield self, parents
        for a in self.args:
            yield from a.walk(parents + (self,))

    @property
    def is_scalar(self):
        if self.kind == "op":
            return all(a.is_scalar for a in self.args)
        return self.kind in ("number", "string") or (self.kind == "call" and self.name in ("scalar", "time"))

    @property
    def labels(self):
        """The labels of the answer where the text says so, else None."""
        if self.kind == "sum" and self.name in ("topk", "bottomk"):
            return self.args[1].labels
        if self.kind == "sum":
            if self.without is not None:
                return ("without", frozenset(self.without))
            return frozenset(self.by or ())
        if self.kind == "call" and self.name == "vector":
            return frozenset()
        if self.kind == "call" and self.name == "histogram_quantile":
            inner = self.args[1].labels
            return inner - {"le"} if isinstance(inner, frozenset) else inner
        if self.kind == "op":
            sides = [a for a in self.args if not a.is_scalar]
            return sides[0].labels if sides else frozenset()
        return None


class Parser:
    def __init__(self, text):
        self.text, self.at, self.tokens = text, 0, []
        at = 0
        while text[at:].strip():
            m = TOKEN.match(text, at)
            if not m:
                raise ValueError(f"not PromQL at {text[at:at + 20]!r}")
            self.tokens.append((m.lastgroup, m[m.lastgroup], m.start(m.lastgroup), m.end()))
            at = m.end()
        self.tokens.append(("end", "", len(text), len(text)))

    @property
    def value(self):
        return self.tokens[self.at][1] if self.tokens[self.at][0] not in ("string",) else None

    def next(self):
        self.at += 1
        return self.tokens[self.at - 1]

    def take(self, value):
        if self.value == value:
            return self.next()
        return None

    def want(self, value):
        token = self.take(value)
        if not token:
            raise ValueError(f"{value!r} is missing at {self.text[self.tokens[self.at][2]:][:20]!r}")
        return token

    def label_list(self):
        self.want("(")
        out = []
        while not self.take(")"):
            out.append(self.next()[1])
            self.take(",")
        return out

    def expression(self, least=1):
        left = self.unary()
        while PRECEDENCE.get(self.value, 0) >= least:
            op = self.next()[1]
            node = Node("op", op, left.start)
            self.take("bool")
            if self.value in ("on", "ignoring"):
                node.matching = (self.next()[1], self.label_list())
                if self.value in ("group_left", "group_right"):
                    self.next()
                    if self.value == "(":
                        self.label_list()
            right = self.expression(PRECEDENCE[op] + (op != "^"))
            node.args, node.end = [left, right], right.end
            left = node
        return left

    def unary(self):
        if self.value == "-":
            start = self.next()[2]
            node = Node("op", "-", start, args=[self.unary()])
            node.end = node.args[0].end
            return node
        return self.primary()

    def primary(self):
        kind, value, start, end = self.next()
        if kind in ("number", "string"):
            node = Node(kind, value, start)
        elif value == "(":
            node = self.expression()
            node.start, end = start, self.want(")")[3]
        elif kind == "name" and value in AGGREGATIONS:
            node = Node("sum", value, start)
            self.grouping(node)
            end = self.arguments(node)
            end = self.grouping(node) or end
        elif kind == "name" and self.value == "(":
            node = Node("call", value, start)
            end = self.arguments(node)
        elif kind == "name":
            node = Node("selector", value, start)
            if self.take("{"):
                while not self.value == "}":
                    label, op, matcher = (self.next()[1] for _ in range(3))
                    node.matchers[label] = (op, matcher[1:-1])
                    self.take(",")
                end = self.want("}")[3]
            if self.tokens[self.at][0] == "range":
                _, text, _, end = self.next()
                node.range = text[1:-1]
        else:
            raise ValueError(f"not an expression: {value!r}")
        node.end = end
        return node

    def grouping(self, node):
        if self.value in ("by", "without"):
            setattr(node, self.next()[1], self.label_list())
            return self.tokens[self.at - 1][3]
        return None

    def arguments(self, node):
        self.want("(")
        while not self.value == ")":
            node.args.append(self.expression())
            self.take(",")
        return self.want(")")[3]


def parse(text):
    p = Parser(text)
    node = p.expression()
    if p.tokens[p.at][0] != "end":
        raise ValueError(f"left over: {text[p.tokens[p.at][2]:][:20]!r}")
    return node


def selectors(text):
    return [(n, parents) for n, parents in parse(text).walk() if n.kind == "selector"]


def metrics(text):
    return {n.name for n, _ in selectors(text)}


def operands(text):
    """What an alert compares, each side by itself: the parts of and/or, both sides of a comparison, what
    absent() is asked about."""
    def split(node):
        if node.kind == "op" and len(node.args) == 2 and (node.name in COMPARISONS or node.name in
                                                          ("and", "or", "unless")):
            return [part for a in node.args for part in split(a)]
        if node.kind == "call" and node.name == "absent":
            return split(node.args[0])
        return [node]
    return [text[n.start:n.end] for n in split(parse(text)) if n.kind != "number"]


def arithmetic_findings(text):
    """Where two vectors meet: labels that cannot match, and divisors that can be 0."""
    out = []
    for n, _ in parse(text).walk():
        if n.kind != "op" or n.name not in "+-*/%^" or len(n.args) < 2 or any(a.is_scalar for a in n.args):
            continue
        left, right = (a.labels for a in n.args)
        if n.matching is None and (left is None or left != right):
            out.append(f"matching: the sides of {n.name!r} may have different labels: {text[n.start:n.end]}")
        if n.matching is not None and (left is None or right is None):
            out.append(f"matching: a side of {n.name!r} is not summed, so two replicas cannot be told apart: "
                       f"{text[n.start:n.end]}")
        guard = n.args[1]
        if n.name == "/" and not (guard.kind == "op" and guard.name == ">" and guard.args[1].name == "0"):
            out.append(f"divisor: {text[guard.start:guard.end]} can be 0; write (… > 0)")
    return out
