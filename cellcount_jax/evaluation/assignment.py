"""The best one-to-one assignment on a sparse bipartite graph, exactly.

Maximum cardinality first, then least total cost. A graph of cells and detections has
hundreds of thousands of nodes and, where cells are dense, hangs together as one component;
a dense cost matrix is out of the question there, and large penalties for unmatched nodes
make the sparse solver search the whole component for each of them. Instead a maximum
matching gives, by the Dulmage-Mendelsohn decomposition, the nodes that every maximum matching
covers; each of its three blocks then has a matching that covers one side fully, which SciPy's
sparse solver finds quickly.

SciPy alone does not do it: of 100,000 cells of a volume, matched within their mean spacing, 98,500
form one component, 77 GB as a dense matrix; and with 30,000 cells `maximum_bipartite_matching`
takes 10 s, the sparse solver with a column for "unmatched" per row 3 s, this module 0.6 s.

Source: Dulmage and Mendelsohn, "Coverings of bipartite graphs" (1958); Azad, Buluc and
Pothen, "Computing maximum cardinality matchings in parallel on bipartite graphs via tree
grafting" (2017), for the search from many roots at once.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components, min_weight_full_bipartite_matching

# Above this mean number of edges per row the dense solver is the faster one (measured), with at
# most 400 MB of costs.
_DENSE_DEGREE = 10
_MAX_DENSE_ENTRIES = 50_000_000
_BATCH_ROWS = 1000


def least_cost_matching(
    rows: np.ndarray, columns: np.ndarray, costs: np.ndarray, shape: tuple[int, int]
) -> np.ndarray:
    """Chooses edges, no two of which share a node: as many as possible, then the cheapest.

    Args:
      rows: `(E,)` the row node of each edge; no edge is given twice.
      columns: `(E,)` the column node of each edge.
      costs: `(E,)` from 0 to about 1.
      shape: the number of row and of column nodes.

    Returns:
      The positions of the chosen edges, sorted.
    """
    chosen = np.zeros(len(rows), bool)
    if len(rows) == 0:
        return np.flatnonzero(chosen)
    row_mate, column_mate = _greedy_matching(rows, columns, costs, shape)
    forward = _adjacency(rows, columns, shape)
    over_rows, over_columns = _complete(forward, row_mate, column_mate)
    backward = _adjacency(columns, rows, shape[::-1])
    under_columns, under_rows = _complete(backward, column_mate, row_mate)

    # No other edge is part of any maximum matching.
    surplus_rows = over_rows[rows]
    surplus_columns = under_columns[columns]
    square = ~(over_rows | under_rows)[rows] & ~(over_columns | under_columns)[columns]
    for block, covered, other, mate in (
        (surplus_rows, columns, rows, column_mate),
        (surplus_columns, rows, columns, row_mate),
        (square, rows, columns, row_mate),
    ):
        edges = np.flatnonzero(block)
        if len(edges) == 0:
            continue
        for batch in _batches(covered[edges], other[edges]):
            part = edges[batch]
            chosen[part[_full_matching(covered[part], other[part], costs[part], mate)]] = True
    return np.flatnonzero(chosen)


def _adjacency(
    sources: np.ndarray, targets: np.ndarray, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Where each source's edges start, and the targets in that order."""
    starts = np.concatenate([[0], np.cumsum(np.bincount(sources, minlength=shape[0]))])
    return starts, targets[np.argsort(sources, kind="stable")]


def _greedy_matching(
    rows: np.ndarray, columns: np.ndarray, costs: np.ndarray, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """A maximal matching to start from: repeatedly, the edges that are cheapest at both ends.

    Returns:
      The mate of each row and of each column node, -1 for none.
    """
    row_mate, column_mate = np.full(shape[0], -1), np.full(shape[1], -1)
    order = np.argsort(costs, kind="stable")
    rows, columns = rows[order], columns[order]
    while len(rows):
        cheapest = np.zeros(len(rows), bool)
        cheapest[np.unique(rows, return_index=True)[1]] = True
        mutual = np.unique(columns, return_index=True)[1]
        mutual = mutual[cheapest[mutual]]
        row_mate[rows[mutual]] = columns[mutual]
        column_mate[columns[mutual]] = rows[mutual]
        free = (row_mate[rows] < 0) & (column_mate[columns] < 0)
        rows, columns = rows[free], columns[free]
    return row_mate, column_mate


def _complete(
    adjacency: tuple[np.ndarray, np.ndarray], row_mate: np.ndarray, column_mate: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Makes a matching maximum, in place, by augmenting paths until there is none.

    Every round grows one tree of alternating paths from each free row, all at once and
    without common nodes, and augments along one path of each tree that met a free column.

    Returns:
      Which rows and which columns alternating paths from the rows left free can reach.
    """
    starts, targets = adjacency
    while True:
        parent = np.full(len(column_mate), -1)
        root = np.full(len(row_mate), -1)
        end = np.full(len(row_mate), -1)
        frontier = np.flatnonzero(row_mate < 0)
        root[frontier] = frontier
        while len(frontier):
            frontier = frontier[end[root[frontier]] < 0]
            degree = starts[frontier + 1] - starts[frontier]
            skipped = np.cumsum(degree) - degree
            edges = np.arange(degree.sum()) + np.repeat(starts[frontier] - skipped, degree)
            sources, reached = np.repeat(frontier, degree), targets[edges]
            new = parent[reached] < 0
            parent[reached[new]] = sources[new]
            reached = np.unique(reached[new])
            origin = root[parent[reached]]
            free = column_mate[reached] < 0
            end[origin[free]] = reached[free]
            frontier = column_mate[reached[~free]]
            root[frontier] = origin[~free]
        columns = end[end >= 0]
        if len(columns) == 0:
            return root >= 0, parent >= 0
        while len(columns):
            rows = parent[columns]
            previous = row_mate[rows]
            row_mate[rows], column_mate[columns] = columns, rows
            columns = previous[previous >= 0]


def _batches(rows: np.ndarray, columns: np.ndarray) -> list[np.ndarray]:
    """Groups edges by connected component, because the solver's time grows with its square.

    Returns:
      The positions of the edges of each group: small components together up to about
      `_BATCH_ROWS` rows, each larger one by itself.
    """
    shape = (rows.max() + 1, columns.max() + 1)
    graph = coo_array(
        (np.ones(len(rows), bool), (rows, columns + shape[0])), shape=(sum(shape), sum(shape))
    )
    _, component = connected_components(graph, directed=False)
    sizes = np.bincount(component[np.unique(rows)], minlength=component.max() + 1)
    ascending = np.argsort(sizes, kind="stable")
    batch = np.empty_like(sizes)
    batch[ascending] = np.cumsum(sizes[ascending]) // _BATCH_ROWS
    of_edge = batch[component[rows]]
    order = np.argsort(of_edge, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(of_edge[order])) + 1)


def _full_matching(
    rows: np.ndarray, columns: np.ndarray, costs: np.ndarray, row_mate: np.ndarray
) -> np.ndarray:
    """Positions of the cheapest edges that cover every row.

    Args:
      rows: `(E,)`; `columns` and `costs` likewise.
      row_mate: a matching that covers every row.
    """
    # SciPy first looks for any full matching, in time that can grow exponentially, but takes
    # each row's first edge where it can: the mates come first, which an unsorted CSR allows.
    order = np.lexsort((row_mate[rows] != columns, rows))
    row_names, starts = np.unique(rows[order], return_index=True)
    column_names, column = np.unique(columns[order], return_inverse=True)
    shape = (len(row_names), len(column_names))
    degree = np.diff(starts, append=len(rows))
    if degree.mean() > _DENSE_DEGREE and math.prod(shape) <= _MAX_DENSE_ENTRIES:
        dense = np.full(shape, np.inf)
        dense[np.repeat(np.arange(shape[0]), degree), column] = costs[order]
        _, best = linear_sum_assignment(dense)
    else:
        # One more for every edge shifts all full matchings alike; SciPy wants no zero costs.
        graph = csr_array((1 + costs[order], column, np.append(starts, len(rows))), shape=shape)
        _, best = min_weight_full_bipartite_matching(graph)
    return order[np.repeat(best, degree) == column]
