"""Device functions that clip a face at the near plane: shared by drawing (`cuda_queue.py`) and resolving."""

# Triton traces these functions; to a type checker its tensors are tuples, its constants ints.
# pyright: reportArgumentType=false, reportOperatorIssue=false, reportGeneralTypeIssues=false
from __future__ import annotations

import triton
import triton.language as tl

from ex4d.render.cuda.screen import NEAR_Z


@triton.jit
def choose(index, a, b, c):
    """a, b or c by index 0, 1, 2."""
    return tl.where(index == 0, a, tl.where(index == 1, b, c))


@triton.jit
def corner(three, one, lone, whole, single_first, single, pair0, pair1, pair2):
    """A polygon corner by case: all corners inside, one inside (the first or another), two inside (by the one outside)."""
    return tl.where(
        three, whole, tl.where(one, tl.where(lone == 0, single_first, single), choose(lone, pair0, pair1, pair2))
    )


@triton.jit
def cross_near(au, av, aw, bu, bv, bw):
    """Where edge a b, of homogeneous pixels, crosses the near plane: (u, v, share of b); any finite point if it does not.

    Computed from the inside corner to the outside one, so that neighbours cut a shared edge alike.
    """
    a_in = aw >= NEAR_Z
    u0, v0, w0 = tl.where(a_in, au, bu), tl.where(a_in, av, bv), tl.where(a_in, aw, bw)
    u1, v1, w1 = tl.where(a_in, bu, au), tl.where(a_in, bv, av), tl.where(a_in, bw, aw)
    t = (w0 - NEAR_Z) / tl.where(w0 == w1, 1.0, w0 - w1)
    return u0 + t * (u1 - u0), v0 + t * (v1 - v0), tl.where(a_in, t, 1.0 - t)


@triton.jit
def clip_face(u0, v0, w0, u1, v1, w1, u2, v2, w2):
    """Clip a face of homogeneous pixels at the near plane: the pieces are (A, B, C) and, with two corners inside, (A, C, D).

    Returns how many corners are inside (with none, A..D are finite and meaningless), then u, v, w and the shares of the
    second and third corner of A, B, C and D. The fan is that of `render.base`: it starts where the walk from the first
    corner meets the inside.
    """
    in0, in1, in2 = (w0 >= NEAR_Z).to(tl.int32), (w1 >= NEAR_Z).to(tl.int32), (w2 >= NEAR_Z).to(tl.int32)
    inside = in0 + in1 + in2
    three, one, none = inside == 3, inside == 1, inside == 0
    # Turn the face so that P is the corner alone on its side of the near plane; S lies on P Q, T on P R.
    odd = one.to(tl.int32)
    lone = tl.where(none | three | (in0 == odd), 0, tl.where(in1 == odd, 1, 2))
    pu, pv, pw = choose(lone, u0, u1, u2), choose(lone, v0, v1, v2), choose(lone, w0, w1, w2)
    qu, qv, qw = choose(lone, u1, u2, u0), choose(lone, v1, v2, v0), choose(lone, w1, w2, w0)
    ru, rv, rw = choose(lone, u2, u0, u1), choose(lone, v2, v0, v1), choose(lone, w2, w0, w1)
    su, sv, s = cross_near(pu, pv, pw, qu, qv, qw)
    tu, tv, t = cross_near(pu, pv, pw, ru, rv, rw)
    sw = tl.full(pw.shape, NEAR_Z, tl.float64)
    tw = sw
    p1, q1, r1 = (lone == 1).to(tl.float64), (lone == 0).to(tl.float64), (lone == 2).to(tl.float64)
    p2, q2, r2 = (lone == 2).to(tl.float64), (lone == 1).to(tl.float64), (lone == 0).to(tl.float64)
    s1, s2 = p1 + s * (q1 - p1), p2 + s * (q2 - p2)
    t1, t2 = p1 + t * (r1 - p1), p2 + t * (r2 - p2)
    au = corner(three, one, lone, pu, pu, tu, su, ru, qu)
    av = corner(three, one, lone, pv, pv, tv, sv, rv, qv)
    aw = corner(three, one, lone, pw, pw, tw, sw, rw, qw)
    a1 = corner(three, one, lone, p1, p1, t1, s1, r1, q1)
    a2 = corner(three, one, lone, p2, p2, t2, s2, r2, q2)
    bu = corner(three, one, lone, qu, su, pu, qu, tu, ru)
    bv = corner(three, one, lone, qv, sv, pv, qv, tv, rv)
    bw = corner(three, one, lone, qw, sw, pw, qw, tw, rw)
    b1 = corner(three, one, lone, q1, s1, p1, q1, t1, r1)
    b2 = corner(three, one, lone, q2, s2, p2, q2, t2, r2)
    cu = corner(three, one, lone, ru, tu, su, ru, su, tu)
    cv = corner(three, one, lone, rv, tv, sv, rv, sv, tv)
    cw = corner(three, one, lone, rw, tw, sw, rw, sw, tw)
    c1 = corner(three, one, lone, r1, t1, s1, r1, s1, t1)
    c2 = corner(three, one, lone, r2, t2, s2, r2, s2, t2)
    du, dv, dw = choose(lone, tu, qu, su), choose(lone, tv, qv, sv), choose(lone, tw, qw, sw)
    d1, d2 = choose(lone, t1, q1, s1), choose(lone, t2, q2, s2)
    aw, bw = tl.where(none, 1.0, aw), tl.where(none, 1.0, bw)
    cw, dw = tl.where(none, 1.0, cw), tl.where(inside == 2, dw, 1.0)
    return inside, au, av, aw, a1, a2, bu, bv, bw, b1, b2, cu, cv, cw, c1, c2, du, dv, dw, d1, d2
