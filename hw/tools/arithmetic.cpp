// The sums of a MAC tree and the pass of a vector lane, bit for bit those of the Verilog that they stand for.
//
// `arithmetic.py` writes the header with the passes of each operation and the constant tables.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace {

constexpr int kChunk = 64;
constexpr uint32_t kNan = 0x7FC00000, kInfinity = 0x7F800000, kOne = 0x3F800000, kSign = 0x80000000;

// Functions with this mark are also compiled for processors with wider vectors and a fused multiply-add.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define VREX_CLONES __attribute__((target_clones("arch=haswell", "default")))
#else
#define VREX_CLONES
#endif

inline float number(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

// The bits of a number, those of the quiet NaN for every NaN.
inline uint32_t bits_of(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return value == value ? bits : kNan;
}

inline bool is_nan(uint32_t bits) { return (bits & ~kSign) > kInfinity; }

// Sum of a chunk in which a factor is infinite or NaN, if a product is; else `finite`.
uint32_t special_sum(const uint16_t *a, const uint16_t *b, uint32_t finite) {
    bool nan = false, plus = false, minus = false;
    for (int i = 0; i < kChunk; ++i) {
        const uint32_t x = a[i] & 0x7FFF, y = b[i] & 0x7FFF;
        if (x < 0x7F80 && y < 0x7F80) continue;
        nan |= x > 0x7F80 || y > 0x7F80 || x == 0 || y == 0;
        ((a[i] ^ b[i]) & 0x8000 ? minus : plus) = true;
    }
    if (nan || (plus && minus)) return kNan;
    return plus ? kInfinity : minus ? kInfinity | kSign : finite;
}

// Scheme `fused`: exact products, cut to multiples of 2^-fraction_bits of the largest exponent, added as integers.
VREX_CLONES uint32_t fused_sum(const uint16_t *a, const uint16_t *b, int fraction_bits) {
    int32_t magnitudes[kChunk], exponents[kChunk];
    int32_t top = 0, largest = 0;
    for (int i = 0; i < kChunk; ++i) {
        const int32_t x = a[i] >> 7 & 255, y = b[i] >> 7 & 255;
        const int32_t product = ((a[i] & 127) | (x ? 128 : 0)) * ((b[i] & 127) | (y ? 128 : 0));
        // Exponents of subnormal factors are that of the smallest normal number; a zero's do not count.
        const int32_t exponent = product ? std::max(x, 1) + std::max(y, 1) : 0;
        magnitudes[i] = (a[i] ^ b[i]) & 0x8000 ? -product : product;
        exponents[i] = exponent;
        top = std::max(top, exponent);
        largest = std::max(largest, std::max(x, y));
    }
    // A product has 14 bits below its point.
    const int up = fraction_bits - 14;
    int64_t sum = 0;
    for (int i = 0; i < kChunk; ++i) {
        const int32_t value = magnitudes[i], sign = value >> 31;
        const int64_t placed = static_cast<int64_t>((value ^ sign) - sign) << up;
        const int64_t cut = placed >> std::min(top - exponents[i], 63);
        sum += (cut ^ sign) - sign;
    }
    // Both factors are exact: only the conversion to float rounds.
    const uint64_t scale = static_cast<uint64_t>(1023 + top - 254 - fraction_bits) << 52;
    double power;
    std::memcpy(&power, &scale, sizeof power);
    const uint32_t finite = bits_of(static_cast<float>(static_cast<double>(sum) * power));
    return largest == 255 ? special_sum(a, b, finite) : finite;
}

// Scheme `tree`: FP32 products, neighbours added first.
VREX_CLONES uint32_t tree_sum(const uint16_t *a, const uint16_t *b) {
    float sums[kChunk];
    for (int i = 0; i < kChunk; ++i) {
        sums[i] = number(static_cast<uint32_t>(a[i]) << 16) * number(static_cast<uint32_t>(b[i]) << 16);
    }
    for (int left = kChunk / 2; left; left /= 2) {
        for (int i = 0; i < left; ++i) sums[i] = sums[2 * i] + sums[2 * i + 1];
    }
    return bits_of(sums[0]);
}

VREX_CLONES uint32_t multiply_add(uint32_t a, uint32_t b, uint32_t c) {
    return bits_of(__builtin_fmaf(number(a), number(b), number(c)));
}

// Where an operand comes from, and what becomes of it (`OperandSource` and `Form` of `vpe_lane.py`).
enum Source : uint8_t { kPort, kRing, kV, kU };
enum Form : uint8_t { kPlain, kFlip, kTable, kScaled, kLarger, kNear, kMinus, kHalf };

struct Pass {
    uint8_t a, b, c, a_is, b_is, c_is;
    bool b_fixed, c_fixed, lift, keep_v, keep_u;
    uint32_t b_const, c_const;
};

#include "arithmetic_tables.h"

// What goes round: the element, the values V and U beside it, and whether its operand was lifted.
struct Element {
    uint32_t o, v, u, lifted;
};

// What enters; bits of `flags`: a join with an accumulator, of two accumulators, an accumulator that stays.
enum Flag : uint32_t { kAdd = 1, kFold = 2, kStay = 4 };

struct Operands {
    uint32_t a, b, c, left, right, flags;
};

inline int exponent_of(uint32_t bits) { return bits >> 23 & 255; }

// Whether `vrex.model.lxe.vpe.maximum` gives the left one.
inline bool is_greater(uint32_t left, uint32_t right) {
    const auto key = [](uint32_t bits) { return bits >> 31 ? ~bits : bits | kSign; };
    return is_nan(left) || (key(left) > key(right) && !is_nan(right));
}

// Operands of the multiply-add that scale by a power of two in two steps: `a` gets one, `b` is the other.
void scale(bool recip, bool rsqrt, bool lifted, uint32_t &a, uint32_t &b, uint32_t c) {
    const int minus = kBias + (lifted ? kLift : 0) + rsqrt - exponent_of(b);
    const int steps = static_cast<int32_t>(c << 18) >> (18 + kExpBits);
    const int power = recip ? minus : rsqrt ? minus >> 1 : steps;
    const bool zero = !(b & ~kSign), invalid = is_nan(b) || (rsqrt && b >> 31 && !zero);
    if ((recip || rsqrt) && (zero || invalid || exponent_of(b) == 255)) {
        a = invalid ? kNan : (zero ? kInfinity : 0) | (b & kSign);
        b = kOne;
        return;
    }
    const int exponent = exponent_of(a);
    const uint32_t field = exponent == 255 ? 255 : (exponent + (power >> 1) + (power & 1)) & 255;
    a = (a & 0x7FFFFF) | field << 23 | ((recip ? b : a) & kSign);
    b = (static_cast<uint32_t>((power >> 1) + kBias) & 255) << 23;
}

// The entry of the operation's table for an operand.
uint32_t table_entry(bool recip, bool rsqrt, uint32_t a) {
    const uint32_t fraction = a & 0x7FFFFF, odd = a >> 23 & 1;
    if (recip) return kRecipSeeds[fraction >> (23 - kSeedBits)];
    if (rsqrt) return kRsqrtSeeds[odd << (kSeedBits - 1) | fraction >> (24 - kSeedBits)];
    return kExpTable[a & ((1 << kExpBits) - 1)];
}

// One pass of an element: the head of a lane, and the multiply-add.
Element pass(uint32_t opcode, uint32_t turn, const Operands &in, const Element &at) {
    const bool add = in.flags & kAdd, fold = in.flags & kFold;
    const Pass &step = kPasses[add || fold][opcode][turn];
    const bool recip = opcode == kRecip, rsqrt = opcode == kRsqrt;
    const uint32_t ports[3] = {fold ? in.left : in.a, in.b, fold ? in.right : add ? at.o : in.c};
    const auto fetch = [&](int port, int source) {
        const uint32_t from[4] = {ports[port], at.o, at.v, at.u};
        return from[source];
    };
    const uint32_t a0 = fetch(0, in.flags & kStay ? uint8_t{kRing} : step.a), b0 = fetch(1, step.b), c0 = fetch(2, step.c);
    const bool subnormal = !exponent_of(a0);
    uint32_t a = a0, b = b0, c = c0, v = step.keep_v ? a0 : at.v;
    if (step.b_fixed) b = step.lift && subnormal ? kLifted : step.b_const;
    if (step.c_fixed) c = step.c_const;
    if (!step.b_fixed && step.b_is == kTable) b = table_entry(recip, rsqrt, a0);
    if (!step.c_fixed && step.c_is == kTable) c = table_entry(recip, rsqrt, a0);
    if (!step.c_fixed && step.c_is == kFlip) c ^= kSign;
    switch (step.a_is) {
        case kFlip: a ^= kSign; break;
        case kTable: a = table_entry(recip, rsqrt, a0); break;
        case kScaled: b = b0; scale(recip, rsqrt, at.lifted, a, b, c0); break;
        case kLarger:
            if (!is_greater(a0, c0)) a = c;
            c = kSign;
            break;
        case kNear:
            if (exponent_of(a0) >= kBias + 7 && !is_nan(a0)) a = v = kExpLimit | (a0 & kSign);
            break;
        case kMinus: a = (a0 & 0x7FFFFF) | kBias << 23 | kSign; break;
        case kHalf: a = (a0 & 0x7FFFFF) | (kBias - (a0 >> 23 & 1)) << 23 | kSign; break;
    }
    return {multiply_add(a, b, c), v, step.keep_u ? b0 : at.u, step.lift ? subnormal : at.lifted};
}

}  // namespace

// The functions that the Verilog of `arithmetic.py` imports; vectors of bits are words, the lowest first.
extern "C" {

uint32_t vrex_fused_sum(const uint32_t *a, const uint32_t *b, int fraction_bits) {
    return fused_sum(reinterpret_cast<const uint16_t *>(a), reinterpret_cast<const uint16_t *>(b), fraction_bits);
}

uint32_t vrex_tree_sum(const uint32_t *a, const uint32_t *b, int) {
    return tree_sum(reinterpret_cast<const uint16_t *>(a), reinterpret_cast<const uint16_t *>(b));
}

uint32_t vrex_add(uint32_t a, uint32_t b) { return bits_of(number(a) + number(b)); }

void vrex_lane_pass(uint32_t opcode, uint32_t turn, uint32_t flags, uint32_t a, uint32_t b, uint32_t c, uint32_t left,
                    uint32_t right, const uint32_t *at, uint32_t *next) {
    const Element element = pass(opcode, turn, {a, b, c, left, right, flags}, {at[0], at[1], at[2], at[3]});
    next[0] = element.o;
    next[1] = element.v;
    next[2] = element.u;
    next[3] = element.lifted;
}

}  // extern "C"
