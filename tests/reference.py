"""The losses of the papers as loops over single numbers in float64, written from their equations.

Arguments are nested lists or numpy arrays; nothing here imports the package.
"""

import cmath
import itertools
import math


def softmax(z, temperature=1.0):
    e = [math.exp(v / temperature) for v in z]
    return [v / sum(e) for v in e]


def softened(logits, temperature):
    return [softmax(z, temperature) for z in logits]


def cross_entropy(logits, labels, epsilon=0.0):
    """With labels of which a share epsilon is spread over all classes."""
    total = 0.0
    for z, y in zip(logits, labels):
        for c, p in enumerate(softmax(z)):
            total -= ((1 - epsilon) * (c == y) + epsilon / len(z)) * math.log(p)
    return total / len(logits)


def divergence(targets, logits, temperature=1.0):
    """KL of given distributions from softmax(logits / T), the mean over images, without the factor T^2."""
    total = 0.0
    for q, z in zip(targets, logits):
        total += sum(a * math.log(a / b) for a, b in zip(q, softmax(z, temperature)) if a > 0)
    return total / len(logits)


def distillation(student, teacher, temperature):
    """T^2 KL(softmax(z_t / T) || softmax(z_s / T)), Hinton et al. 2015."""
    return temperature**2 * divergence(softened(teacher, temperature), student, temperature)


def decoupled(student, teacher, labels, temperature):
    """The two divergences of Zhao et al. 2022, each the mean over images, without the factor T^2."""
    target = others = 0.0
    for zs, zt, y in zip(student, teacher, labels):
        ps, pt = softmax(zs, temperature), softmax(zt, temperature)
        for s, t in ((ps[y], pt[y]), (1 - ps[y], 1 - pt[y])):
            target += t * math.log(t / s)
        wrong = [c for c in range(len(ps)) if c != y]
        qs, qt = ([p[c] / sum(p[c] for c in wrong) for c in wrong] for p in (ps, pt))
        others += sum(t * math.log(t / s) for s, t in zip(qs, qt))
    return target / len(student), others / len(student)


def standardized(logits):
    """Of each image: mean 0 and deviation 1 over the classes (Sun et al. 2024)."""
    rows = []
    for z in logits:
        mean = sum(z) / len(z)
        deviation = math.sqrt(sum((v - mean) ** 2 for v in z) / len(z))
        rows.append([(v - mean) / deviation for v in z])
    return rows


def pearson(u, v):
    a, b = ([x - sum(w) / len(w) for x in w] for w in (u, v))
    return sum(x * y for x, y in zip(a, b)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def correlation_gaps(student, teacher, temperature):
    """1 - the mean correlation along the classes of each image, and along the images of each class (Huang et al.)."""
    p, q = softened(student, temperature), softened(teacher, temperature)
    return tuple(1 - sum(map(pearson, a, b)) / len(a) for a, b in ((p, q), (list(zip(*p)), list(zip(*q)))))


def cosine(u, v):
    return sum(a * b for a, b in zip(u, v)) / math.sqrt(sum(a * a for a in u) * sum(b * b for b in v))


def bank_contrast(queries, bank, own, seen, temperature):
    """The softmax over the rows of a bank that each query sees, and its own (Wu et al. 2018)."""
    total = 0.0
    for query, row, sees in zip(queries, own, seen):
        e = {j: math.exp(cosine(query, bank[j]) / temperature) for j in {*sees, row}}
        total -= math.log(e[row] / sum(e.values()))
    return total / len(queries)


def sampled_contrast(queries, bank, own, drawn, temperature):
    """Noise-contrastive estimation with N samples and the constant of the first batch (Tian et al. 2020)."""
    e = [
        [math.exp(cosine(u, bank[j]) / temperature) for j in (row, *some)] for u, row, some in zip(queries, own, drawn)
    ]
    count = len(drawn[0])
    z = sum(map(sum, e)) / (len(e) * (count + 1))
    total = 0.0
    for first, *rest in e:
        total -= math.log(first / (first + count * z))
        total -= sum(math.log(1 - x / (x + count * z)) for x in rest)
    return total / len(e)


def similarity_matching(students, teachers, keys, temperature, teacher_temperature):
    """The cross-entropy of a student's relations with a teacher's and its keys, against the teacher's (Fang et al.)."""
    total = 0.0
    for s, t in zip(students, teachers):
        goal = softmax([cosine(t, k) for k in (t, *keys)], teacher_temperature)
        own = softmax([cosine(s, k) for k in (t, *keys)], temperature)
        total -= sum(p * math.log(q) for p, q in zip(goal, own))
    return total / len(students)


def averaged(image, size):
    """A map of c h w averaged over equal parts to c size size."""
    c, h, w = image.shape
    return image.reshape(c, size, h // size, size, w // size).mean((2, 4))


def hierarchical_context(student, teacher):
    """The mean squared difference of maps, and of their averages over 4, 2 and 1 pixels a side (Chen et al. 2021)."""

    def gap(a, b):
        return sum(float(((x - y) ** 2).sum()) for x, y in zip(a, b)) / (len(a) * a[0].size)

    total, weight, weights = gap(student, teacher), 1.0, 1.0
    for size in (4, 2, 1):
        if size < student.shape[2]:
            weight /= 2
            weights += weight
            total += weight * gap(*([averaged(image, size) for image in maps] for maps in (student, teacher)))
    return total / weights


def barlow_twins(a, b):
    """The invariance and the redundancy of Zbontar et al. 2021."""
    n, d = len(a), len(a[0])
    invariance = redundancy = 0.0

    def centered(z, i):
        mean = sum(row[i] for row in z) / n
        return [row[i] - mean for row in z]

    for i, j in itertools.product(range(d), repeat=2):
        x, y = centered(a, i), centered(b, j)
        c = sum(p * q for p, q in zip(x, y)) / math.sqrt(sum(p * p for p in x) * sum(q * q for q in y))
        if i == j:
            invariance += (1 - c) ** 2
        else:
            redundancy += c**2
    return invariance, redundancy


def vicreg(a, b, eps):
    """Invariance, variance and covariance of Bardes et al. 2022, Eq. (1) to (5), Eq. (5) over the number of columns."""
    n, d = len(a), len(a[0])
    invariance = sum((x - y) ** 2 for p, q in zip(a, b) for x, y in zip(p, q)) / (n * d)
    variance = covariance = 0.0
    for z in (a, b):
        means = [sum(row[j] for row in z) / n for j in range(d)]
        for i, j in itertools.product(range(d), repeat=2):
            c = sum((row[i] - means[i]) * (row[j] - means[j]) for row in z) / (n - 1)
            if i == j:
                variance += max(0.0, 1 - math.sqrt(c + eps)) / d
            else:
                covariance += c**2 / d
    return invariance, variance, covariance


def epps_pulley(x, limit, points):
    """`n int |1/n sum_j e^{itx_j} - e^{-t^2/2}|^2 e^{-t^2/2} dt` by the trapezoidal rule."""
    step = 2 * limit / (points - 1)
    total = 0.0
    for k in range(points):
        t = -limit + k * step
        normal = math.exp(-t * t / 2)
        gap = abs(sum(cmath.exp(1j * t * v) for v in x) / len(x) - normal)
        total += len(x) * gap**2 * normal * step * (0.5 if k in (0, points - 1) else 1)
    return total


def lejepa(views, large, lines, limit, points):
    """Balestriero and LeCun 2025: Eq. (7) over the width, and SIGReg, the means over views, images and lines."""
    count, n, d = len(views), len(views[0]), len(views[0][0])
    prediction = sigreg = 0.0
    for view in views:
        for i, j in itertools.product(range(n), range(d)):
            center = sum(other[i][j] for other in views[:large]) / large
            prediction += (center - view[i][j]) ** 2 / (count * n * d)
        for line in lines:
            x = [sum(a * b for a, b in zip(line, row)) for row in view]
            sigreg += epps_pulley(x, limit, points) / (count * len(lines))
    return prediction, sigreg


def in_batch(relations, temperature):
    """-log softmax of the own key's relation, of a matrix of all queries with all keys (Dwibedi et al. 2021, Eq. 3)."""
    return -sum(math.log(softmax(row, temperature)[i]) for i, row in enumerate(relations)) / len(relations)


def consistency(relations, targets, temperature, target_temperature):
    """The cross-entropy of two distributions over the same keys (Zheng et al. 2021)."""
    total = 0.0
    for row, target in zip(relations, targets):
        p, q = softmax(target, target_temperature), softmax(row, temperature)
        total -= sum(a * math.log(b) for a, b in zip(p, q))
    return total / len(relations)


def huber(x):
    return 0.5 * x * x if abs(x) < 1 else abs(x) - 0.5


def rkd_distance(s, t, distinct):
    n = len(s)
    pairs = [(i, j) for i in range(n) for j in range(n) if i != j or not distinct]

    def psi(f):
        d = {(i, j): math.sqrt(sum((f[i] - f[j]) ** 2)) for i, j in itertools.product(range(n), repeat=2)}
        counted = [v for v in d.values() if v > 0]
        mu = sum(counted) / len(counted)
        return {pair: v / mu for pair, v in d.items()}

    a, b = psi(s), psi(t)
    return sum(huber(a[p] - b[p]) for p in pairs) / len(pairs)


def rkd_angle(s, t, distinct):
    triples = [x for x in itertools.product(range(len(s)), repeat=3) if len(set(x)) == 3 or not distinct]

    def towards(f, i, j):
        difference = f[i] - f[j]
        return difference / max(math.sqrt(sum(difference**2)), 1e-12)

    total = 0.0
    for i, j, k in triples:
        total += huber(sum(towards(s, i, j) * towards(s, k, j)) - sum(towards(t, i, j) * towards(t, k, j)))
    return total / len(triples)


def attention_transfer(stages_s, stages_t, squared):
    total = 0.0
    for a, b in zip(stages_s[::-1], stages_t[::-1]):
        n, _, h, w = a.shape
        for one, other in zip(a, b):
            maps = [(m**2).mean(0).ravel() for m in (one, other)]
            maps = [m / math.sqrt(sum(m**2)) for m in maps]
            gap = sum((maps[0] - maps[1]) ** 2)
            total += (gap if squared else math.sqrt(gap) / 2) / (h * w * n)
    return total


def similarity(map_s, map_t):
    n = len(map_s)

    def rows(f):
        g = [[float((a * b).sum()) for b in f] for a in f]
        return [[v / math.sqrt(sum(u * u for u in row)) for v in row] for row in g]

    a, b = rows(map_s), rows(map_t)
    return sum((a[i][j] - b[i][j]) ** 2 for i in range(n) for j in range(n)) / n**2


def correlation(s, t, gamma, order):
    n = len(s)

    def kernel(f, i, j):
        x = sum(f[i] * f[j]) / math.sqrt(sum(f[i] ** 2) * sum(f[j] ** 2))
        return sum(math.exp(-2 * gamma) * (2 * gamma) ** p / math.factorial(p) * x**p for p in range(order + 1))

    return sum((kernel(s, i, j) - kernel(t, i, j)) ** 2 for i in range(n) for j in range(n)) / n**2


def neighbor_products(s, t):
    total = 0.0
    for i in range(len(s) - 1):
        for d in range(s.shape[1]):
            total += abs(s[i, d] - t[i, d]) * abs(s[i + 1, d] - t[i + 1, d])
    return total / (len(s) - 1)


def hint_distance(shallow, deepest, frobenius):
    """Of self-distillation: the mean squared distance, or the length of the whole batch's difference."""
    squares = sum((a - b) ** 2 for f, g in zip(shallow, deepest) for a, b in zip(f, g))
    return math.sqrt(squares) if frobenius else squares / len(shallow)


def virtual_target(y, classes, temperature, correct, form):
    """Of teacher-free distillation: softmax(log u / T) as in the paper, softmax(u / T) as in the code."""
    u = [correct if c == y else (1 - correct) / (classes - 1) for c in range(classes)]
    if form == "code":
        return softmax(u, temperature)
    powers = [v ** (1 / temperature) for v in u]
    return [v / sum(powers) for v in powers]
