"""Random variants of contest instances: other limits, dropped nodes and edges, scaled costs, sub-graphs, fewer
strategies, disjoint unions, several copies, permuted nodes.

A variant is its name, KIND-INSTANCE-SEED: the same name gives the same problem everywhere. Node and edge lists are
Python's; costs of forbidden pairs (10^18 and more) stay as they are."""

import gzip
import json
import random

KINDS = ("limit", "drop", "scale", "part", "tight", "edges", "union", "tile", "fewer", "permute")
FORBIDDEN = 10**18


def names(count, letters):
    """`count` names in an order that mixes kinds and instances."""
    return [f"{KINDS[k % len(KINDS)]}-{letters[k // len(KINDS) % len(letters)]}-{k // (len(KINDS) * len(letters))}"
            for k in range(count)]


def load(path):
    with gzip.open(path, "rb") as file:
        return json.load(file)["problem"]


def least_peak(problem):
    """The peak where every node takes its least usage: no assignment has a lower one."""
    changes = {}
    for (begin, end), usages in zip(problem["nodes"]["intervals"], problem["nodes"]["usages"]):
        if begin < end:
            changes[begin] = changes.get(begin, 0) + min(usages)
            changes[end] = changes.get(end, 0) - min(usages)
    now = peak = 0
    for time in sorted(changes):
        now += changes[time]
        peak = max(peak, now)
    return peak


def keep_nodes(problem, kept):
    """The problem on the nodes `kept`, in that order, with the edges between them."""
    number = {v: i for i, v in enumerate(kept)}
    nodes, edges = problem["nodes"], problem["edges"]
    inside = [e for e, (a, b) in enumerate(edges["nodes"]) if a in number and b in number]
    return {"nodes": {key: [nodes[key][v] for v in kept] for key in ("intervals", "costs", "usages")},
            "edges": {"nodes": [[number[v] for v in edges["nodes"][e]] for e in inside],
                      "costs": [edges["costs"][e] for e in inside]},
            "usage_limit": problem["usage_limit"]}


def scale(rows, draw, share):
    """Whole rows times a factor between 1/4 and 4, for `share` of them."""
    out = []
    for row in rows:
        factor = 4 ** draw.uniform(-1, 1) if draw.random() < share else 1
        out.append(row if factor == 1 else [c if c >= FORBIDDEN else round(c * factor) for c in row])
    return out


def ball(problem, draw, share):
    """The nodes that a breadth-first walk from a random node finds first."""
    count = len(problem["nodes"]["costs"])
    beside = [[] for _ in range(count)]
    for a, b in problem["edges"]["nodes"]:
        beside[a].append(b)
        beside[b].append(a)
    wanted, seen, order = max(1, int(count * share)), set(), []
    while len(order) < wanted:
        start = draw.randrange(count)
        if start in seen:
            continue
        seen.add(start)
        queue = [start]
        while queue and len(order) < wanted:
            v = queue.pop(0)
            order.append(v)
            for w in beside[v]:
                if w not in seen:
                    seen.add(w)
                    queue.append(w)
    return sorted(order)


def drop_edges(problem, draw, share):
    kept = [e for e in range(len(problem["edges"]["nodes"])) if draw.random() >= share]
    return dict(problem, edges={key: [rows[e] for e in kept] for key, rows in problem["edges"].items()})


def join(problems, offsets):
    """All of them side by side, the times of each moved on."""
    out = {"nodes": {"intervals": [], "costs": [], "usages": []}, "edges": {"nodes": [], "costs": []}}
    for problem, offset in zip(problems, offsets):
        first = len(out["nodes"]["costs"])
        out["nodes"]["intervals"] += [[begin + offset, end + offset] for begin, end in problem["nodes"]["intervals"]]
        out["nodes"]["costs"] += problem["nodes"]["costs"]
        out["nodes"]["usages"] += problem["nodes"]["usages"]
        out["edges"]["nodes"] += [[a + first, b + first] for a, b in problem["edges"]["nodes"]]
        out["edges"]["costs"] += problem["edges"]["costs"]
    return out


def last_time(problem):
    return max((end for _, end in problem["nodes"]["intervals"]), default=0)


def keep_strategies(problem, draw, share, planted):
    """Every strategy goes with probability 1 - share, but for those of `planted`, so that some answer remains."""
    kept = [[i for i in range(len(costs)) if i == planted[v] or draw.random() < share]
            for v, costs in enumerate(problem["nodes"]["costs"])]
    nodes, edges = problem["nodes"], problem["edges"]
    rows = []
    for (a, b), costs in zip(edges["nodes"], edges["costs"]):
        width = len(nodes["costs"][b])
        rows.append([costs[i * width + j] for i in kept[a] for j in kept[b]])
    return {"nodes": {"intervals": nodes["intervals"],
                      "costs": [[row[i] for i in kept[v]] for v, row in enumerate(nodes["costs"])],
                      "usages": [[row[i] for i in kept[v]] for v, row in enumerate(nodes["usages"])]},
            "edges": {"nodes": edges["nodes"], "costs": rows}}


def make(name, sources, answers):
    """The problem called `name`; sources: {letter: problem}, answers: {letter: an assignment of it that fits}. The limit
    is drawn anew: 1.1 times the least peak, as the contest has it, in half of them; else 1.02 to 2 times, most of them
    small; 1.002 to 1.05 where it is tight. Where an answer was planted, it fits."""
    kind, letter, seed = name.split("-")
    draw = random.Random(name)
    problem = sources[letter]
    count = len(problem["nodes"]["costs"])
    least, span, planted = 0.02, 50, 0
    if kind == "drop":
        share = draw.uniform(0.5, 0.98)
        problem = keep_nodes(problem, [v for v in range(count) if draw.random() < share])
    elif kind == "part":
        problem = keep_nodes(problem, ball(problem, draw, draw.uniform(0.05, 0.6)))
    elif kind == "tight":
        problem = keep_nodes(problem, ball(problem, draw, draw.uniform(0.05, 1)))
        least, span = 0.002, 25
    elif kind == "permute":
        order = list(range(count))
        draw.shuffle(order)
        return keep_nodes(problem, order)
    elif kind == "scale":
        share = draw.uniform(0.2, 1)
        problem = dict(problem, nodes=dict(problem["nodes"], costs=scale(problem["nodes"]["costs"], draw, share)),
                       edges=dict(problem["edges"], costs=scale(problem["edges"]["costs"], draw, share)))
    elif kind == "edges":
        problem = drop_edges(problem, draw, draw.uniform(0.02, 0.4))
    elif kind == "union":
        other = sources[draw.choice(sorted(sources))]
        parts = [keep_nodes(p, ball(p, draw, draw.uniform(0.1, 0.7))) for p in (problem, other)]
        problem = join(parts, [0, int(last_time(parts[0]) * draw.uniform(0, 0.8))])
    elif kind == "tile":
        copies = draw.randint(2, 3) if count > 2000 else draw.randint(2, 40)
        step = last_time(problem) * draw.uniform(0.3, 0.9)
        parts = [dict(problem, nodes=dict(problem["nodes"], costs=scale(problem["nodes"]["costs"], draw, 0.3)))
                 for _ in range(copies)]
        problem = join(parts, [int(step * k) for k in range(copies)])
    elif kind == "fewer":
        problem = keep_strategies(problem, draw, draw.uniform(0.3, 0.9), answers[letter])
        planted = sources[letter]["usage_limit"]
    share = 0.1 if kind not in ("limit", "tight") and draw.random() < 0.5 else least * span ** draw.random()
    return dict(problem, usage_limit=max(int(least_peak(problem) * (1 + share)), planted))


def write(problem, path):
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(json.dumps({"problem": problem}, separators=(",", ":")).encode())
