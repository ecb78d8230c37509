// The VPE's functions as sequences of fmaf, to scan all 2^32 operands: test_vpe_scan.py compares with the model.
#include <cmath>
#include <cstdint>
#include <cstring>

namespace {

struct Tables {
    float exp_steps, exp_steps_low, exp_magic, exp_terms[3], exp_table[32], recip_seeds[128], rsqrt_seeds[128];
};

constexpr uint32_t SIGN = 0x80000000u, EXPONENT = 0x7F800000u, FRACTION = 0x007FFFFFu, NAN_BITS = 0x7FC00000u;

uint32_t bits(float x) {
    uint32_t u;
    std::memcpy(&u, &x, 4);
    return u;
}

float value(uint32_t u) {
    float x;
    std::memcpy(&x, &u, 4);
    return x;
}

float power_of_two(int exponent) { return value(static_cast<uint32_t>(exponent + 127) << 23); }

float scale(float x, int exponent) {
    const int low = exponent >> 1;
    return x * power_of_two(exponent - low) * power_of_two(low);
}

float exp_of(float x, const Tables &t) {
    if (std::isnan(x)) return value(NAN_BITS);
    if (std::fabs(x) >= 128.0f) x = std::copysign(128.0f, x);
    const float rounded = std::fmaf(x, t.exp_steps, t.exp_magic);
    const float whole = rounded - t.exp_magic;
    const float rest = std::fmaf(x, t.exp_steps_low, std::fmaf(x, t.exp_steps, -whole));
    const float series = std::fmaf(std::fmaf(rest, t.exp_terms[2], t.exp_terms[1]), rest, t.exp_terms[0]);
    const int steps = static_cast<int>(bits(rounded)) - static_cast<int>(bits(t.exp_magic));
    const float entry = t.exp_table[steps & 31];
    return scale(std::fmaf(entry, series * rest, entry), steps >> 5);
}

struct Lifted {
    uint32_t word;
    int field, exponent;
};

Lifted lift(float a) {
    const int by = bits(a) & EXPONENT ? 0 : 24;
    const uint32_t word = bits(a * power_of_two(by));
    const int field = static_cast<int>(word >> 23 & 255);
    return {word, field, field - 127 - by};
}

float recip_of(float a, const Tables &t) {
    if (std::isnan(a)) return value(NAN_BITS);
    const Lifted l = lift(a);
    const float m = value((l.word & FRACTION) | 127u << 23);
    float y = t.recip_seeds[(l.word & FRACTION) >> 16];
    for (int i = 0; i < 2; i++) y = std::fmaf(y, std::fmaf(-m, y, 1.0f), y);
    uint32_t magnitude = bits(scale(y, -l.exponent));
    if (!(l.word & ~SIGN)) magnitude = EXPONENT;
    if ((l.word & ~SIGN) == EXPONENT) magnitude = 0;
    return value(magnitude | (l.word & SIGN));
}

float rsqrt_of(float a, const Tables &t) {
    if (std::isnan(a)) return value(NAN_BITS);
    const Lifted l = lift(a);
    if (!(l.word & ~SIGN)) return value((l.word & SIGN) | EXPONENT);
    if (l.word & SIGN) return value(NAN_BITS);
    if (l.word == EXPONENT) return 0.0f;
    const int odd = l.field & 1;
    const float half = value((l.word & FRACTION) | static_cast<uint32_t>(127 - odd) << 23);
    float y = t.rsqrt_seeds[odd << 6 | (l.word & FRACTION) >> 17];
    for (int i = 0; i < 2; i++) y = std::fmaf(y, std::fmaf(-half, y * y, 0.5f), y);
    return scale(y, -(l.exponent >> 1));
}

float apply(int function, float x, const Tables &t) {
    return function == 0 ? exp_of(x, t) : function == 1 ? recip_of(x, t) : rsqrt_of(x, t);
}

double exact(int function, float x) {
    const double wide = x;
    return function == 0 ? std::exp(wide) : function == 1 ? 1.0 / wide : 1.0 / std::sqrt(wide);
}

// Distance in units in the last place of the binade that holds the exact value, subnormal ones included.
double error(float got, double wanted) {
    int exponent;
    std::frexp(wanted, &exponent);
    return std::fabs(got - wanted) * std::ldexp(1.0, 24 - (exponent < -125 ? -125 : exponent));
}

}  // namespace

extern "C" void apply_all(int function, const Tables *t, const uint32_t *operands, uint32_t *results, uint64_t n) {
    for (uint64_t i = 0; i < n; i++) results[i] = bits(apply(function, value(operands[i]), *t));
}

// Operands first .. last, of one sign. The largest error and its operand among results that FP32 can hold, and
// the steps between neighbours that go against the function: those of one unit in the last place, and others.
extern "C" void scan(int function, const Tables *t, uint32_t first, uint32_t last, double *worst, uint32_t *where,
                     uint64_t *against, uint64_t *farther) {
    const bool falls = (function == 0) == ((first & SIGN) != 0);
    uint32_t before = bits(apply(function, value(first), *t));
    for (uint64_t u = first; u <= last; u++) {
        const float x = value(static_cast<uint32_t>(u)), got = apply(function, x, *t);
        const double wanted = exact(function, x);
        if (std::isfinite(got) && std::isfinite(wanted) && got != 0.0f) {
            const double by = error(got, wanted);
            if (by > *worst) *worst = by, *where = static_cast<uint32_t>(u);
        }
        const uint32_t now = bits(got);
        if (now != before && (falls ? got > value(before) : got < value(before))) {
            const int64_t units = static_cast<int64_t>(now) - static_cast<int64_t>(before);
            (units == 1 || units == -1 ? *against : *farther)++;
        }
        before = now;
    }
}
