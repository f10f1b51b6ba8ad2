/* Activations on vectors, within a few units in the last place of the double reference. Where an exponent is itself a
 * rounded product, its rounding error is carried along: exp would multiply it by up to 100. */
#ifndef CRIA_KERNELS_CPU_ACTIVATION_H
#define CRIA_KERNELS_CPU_ACTIVATION_H

#include "kernels/activation.h"
#include "kernels/cpu/vector.h"

/* The polynomial of degree 7 in r whose leading 1 is added last: exp(r) for |r| <= ln 2 / 2. */
VECTOR_INLINE vf vf_exp_rest(vf r) {
    vf p = vf_set(1.98581268e-4f);
    p = vf_fma(p, r, vf_set(1.39344967e-3f));
    p = vf_fma(p, r, vf_set(8.33336183e-3f));
    p = vf_fma(p, r, vf_set(4.16664574e-2f));
    p = vf_fma(p, r, vf_set(1.66666665e-1f));
    p = vf_fma(p, r, vf_set(0.5f));
    return vf_fma(p, r * r, r) + vf_set(1.0f);
}

/* x - n ln 2. */
VECTOR_INLINE vf vf_less_logs(vf x, vf n) {
    return vf_fma(n, vf_set(0x1.05c610p-29f), vf_fma(n, vf_set(-0x1.62e430p-1f), x));
}

/* exp(x + low) for |x| <= 150 and |low| a rounding error of x: x = n ln 2 + r. */
VECTOR_INLINE vf vf_exp_parts(vf x, vf low) {
    vf n = vf_round(x * vf_set(1.44269504f));
    return vf_scale(vf_exp_rest(vf_less_logs(x, n) + low), n);
}

/* exp(x) for x <= 0, and 0 where that is below the normal numbers (x < -87). NaN stays NaN. */
VECTOR_INLINE vf vf_exp_weight(vf x) {
    vf n = vf_round(x * vf_set(1.44269504f));
    vf weight = vf_scale_normal(vf_exp_rest(vf_less_logs(x, n)), n);
    return vf_choose(vf_less(x, vf_set(-87)), vf_set(0), weight);
}

/* NaN passes through the clamps, being the second operand. */
VECTOR_INLINE vf vf_clamp(vf x, float low, float high) {
    return vf_min(vf_set(high), vf_max(vf_set(low), x));
}

VECTOR_INLINE vf vf_exp(vf x) {
    return vf_exp_parts(vf_clamp(x, -110, 100), vf_set(0));
}

/* x / (1 + exp(-(u + low))); u within +-150. */
VECTOR_INLINE vf vf_gate(vf x, vf u, vf low) {
    vf zero = vf_set(0);
    return x / (vf_set(1) + vf_exp_parts(zero - u, zero - low));
}

VECTOR_INLINE vf vf_sigmoid(vf x) {
    return vf_gate(vf_set(1), vf_clamp(x, -110, 110), vf_set(0));
}

VECTOR_INLINE vf vf_silu(vf x) {
    return vf_gate(x, vf_clamp(x, -110, 110), vf_set(0));
}

VECTOR_INLINE vf vf_quick_gelu(vf x) {
    vf factor = vf_set(1.702f), near = vf_clamp(x, -64, 64), u = factor * near;
    vf low = vf_fma(factor, near, vf_set(0) - u); /* what the product lost, and what 1.702f lost of 1.702 */
    return vf_gate(x, u, vf_fma(vf_set((float)(1.702 - (double)1.702f)), near, low));
}

/* x * sigmoid(u), u = x (a + b x^2) with a = 2 sqrt(2/pi), b = 0.044715 a; every rounding error of u is kept. */
VECTOR_INLINE vf vf_gelu_tanh(vf x) {
    const double a = 1.5957691216057307, b = 0.07135481627159851;
    vf near = vf_clamp(x, -11, 11), zero = vf_set(0); /* exp overflows to infinity beyond: the result is -0 or x */
    vf square = near * near, square_low = vf_fma(near, near, zero - square);
    vf b_high = vf_set((float)b), term = b_high * square;
    vf term_low = vf_fma(b_high, square, zero - term);
    term_low = vf_fma(b_high, square_low, vf_fma(vf_set((float)(b - (double)(float)b)), square, term_low));
    vf a_high = vf_set((float)a), sum = a_high + term, from_term = sum - a_high;
    vf sum_low = (a_high - (sum - from_term)) + (term - from_term); /* exact (Knuth's two-sum) */
    sum_low = sum_low + (term_low + vf_set((float)(a - (double)(float)a)));
    vf u = near * sum, low = vf_fma(near, sum, zero - u);
    return vf_gate(x, u, vf_fma(near, sum_low, low));
}

/* x * Phi(x). With y = |x|: Phi(-y) = exp(-y^2/2) * t * P(t), t = 1 / (1 + y/4), P of degree 9 fitted to the scaled
 * complementary error function (relative error 9e-9). The left tail is a product, without cancellation. t is rounded,
 * that is, belongs to a slightly other y; W = t * P(t) is brought back to y along its derivative, y W - 1/sqrt(2 pi).
 */
VECTOR_INLINE vf vf_gelu(vf x) {
    vf y = vf_min(vf_set(15), vf_abs(x)), zero = vf_set(0); /* Phi(-15) is 0 in f32 */
    vf one = vf_set(1), quarter = vf_set(0.25f), divisor = vf_fma(y, quarter, one), t = one / divisor;
    vf p = vf_set(1.68925234e-2f);
    p = vf_fma(p, t, vf_set(-6.45378087e-2f));
    p = vf_fma(p, t, vf_set(5.58809783e-2f));
    p = vf_fma(p, t, vf_set(2.26088984e-2f));
    p = vf_fma(p, t, vf_set(1.77363765e-2f));
    p = vf_fma(p, t, vf_set(8.38503376e-2f));
    p = vf_fma(p, t, vf_set(7.30131115e-2f));
    p = vf_fma(p, t, vf_set(9.52877931e-2f));
    p = vf_fma(p, t, vf_set(9.95214662e-2f));
    p = vf_fma(p, t, vf_set(9.97463292e-2f));
    vf w = p * t, divisor_low = vf_fma(y, quarter, one - divisor);
    vf excess = vf_fma(t, divisor_low, vf_fma(t, divisor, zero - one)); /* (1 + y/4) * t - 1, to be zero */
    w = vf_fma(vf_fma(y, w, vf_set(-0.398942280f)), vf_set(4) * divisor * excess, w);
    vf half = vf_set(-0.5f), square = y * y, square_low = vf_fma(y, y, zero - square);
    vf tail = x * (w * vf_exp_parts(half * square, half * square_low));
    return vf_choose(vf_less(x, zero), tail, x - tail);
}

/* An odd polynomial near zero (relative error 4e-9), from exp elsewhere. */
VECTOR_INLINE vf vf_tanh(vf x) {
    vf square = x * x, p = vf_set(-6.34600681e-4f);
    p = vf_fma(p, square, vf_set(2.98715939e-3f));
    p = vf_fma(p, square, vf_set(-8.62114622e-3f));
    p = vf_fma(p, square, vf_set(2.18177888e-2f));
    p = vf_fma(p, square, vf_set(-5.39628869e-2f));
    p = vf_fma(p, square, vf_set(1.33333122e-1f));
    p = vf_fma(p, square, vf_set(-3.33333332e-1f));
    vf near = vf_fma(p * square, x, x);
    vf twice = vf_clamp(x + x, -100, 100);
    vf far = vf_set(1) - vf_set(2) / (vf_exp_parts(vf_abs(twice), vf_set(0)) + vf_set(1));
    far = vf_choose(vf_less(x, vf_set(0)), vf_set(0) - far, far);
    return vf_choose(vf_less(vf_abs(x), vf_set(0.8f)), near, far);
}

/* `name` must be a constant where this is called in a loop. */
VECTOR_INLINE vf vf_activation(cria_activation_name name, vf x) {
    switch (name) {
    case CRIA_ACT_RELU:
        return vf_max(vf_set(0), x);
    case CRIA_ACT_GELU:
        return vf_gelu(x);
    case CRIA_ACT_GELU_TANH:
        return vf_gelu_tanh(x);
    case CRIA_ACT_SILU:
        return vf_silu(x);
    case CRIA_ACT_QUICK_GELU:
        return vf_quick_gelu(x);
    case CRIA_ACT_TANH:
        return vf_tanh(x);
    case CRIA_ACT_SIGMOID:
        return vf_sigmoid(x);
    case CRIA_ACT_RELU2: {
        vf positive = vf_max(vf_set(0), x);
        return positive * positive;
    }
    case CRIA_ACT_NONE:
    case CRIA_ACT_COUNT:
        break;
    }
    return x;
}

#endif
