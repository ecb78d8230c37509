// Clocks a simulated board behind a serial line: bytes in, bytes out, bit by bit over its pins.
//
// Compiled with VREX_TOP and VREX_HEADER, Verilator's class of the board, DIVISOR, clock cycles of a bit, and with
// HAS_MEMORY and BUS_BYTES. The line is what is noisy here: bits that flip, bytes that get lost, bytes that come twice,
// each by chance and in both directions. A board with a memory has a buffer behind its AXI4 port, which keeps its content
// when the board is reset.

#include <cstdint>
#include <deque>
#include <vector>

#include VREX_HEADER
#include "harness_memory.h"
#include "verilated.h"

namespace {

constexpr int kResetCycles = 4;
constexpr unsigned kDivisor = DIVISOR;
constexpr unsigned kBits = 10;  // of a byte on the line: start bit, eight bits, stop bit

// Chances in units of 2^-32.
struct Noise {
    uint64_t random = 1;
    uint32_t flip = 0, drop = 0, repeat = 0;
    uint64_t flipped = 0, dropped = 0, repeated = 0;

    bool happens(uint32_t chance, uint64_t &count) {
        if (chance == 0) return false;
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        const bool yes = (random >> 16 & 0xFFFFFFFF) < chance;
        count += yes;
        return yes;
    }

    // How often a byte goes over the line.
    unsigned copies() {
        if (happens(drop, dropped)) return 0;
        return happens(repeat, repeated) ? 2 : 1;
    }

    bool bit(bool value) { return value != happens(flip, flipped); }
};

// The host's sender: holds the board's rx.
struct Sender {
    std::deque<uint8_t> bytes;
    unsigned bits = 0, left = 0, timer = 0;
    bool level = true;

    bool busy() const { return left || !bytes.empty(); }

    void cycle(Noise &noise) {
        if (timer) {
            --timer;
            return;
        }
        if (!left && !bytes.empty()) {
            bits = bytes.front() << 1 | 1u << (kBits - 1);
            bytes.pop_front();
            left = kBits;
        }
        level = true;
        if (!left) return;
        level = noise.bit(bits & 1);
        bits >>= 1;
        --left;
        timer = kDivisor - 1;
    }
};

// The host's receiver: samples the board's tx in the middle of each bit.
struct Receiver {
    unsigned bits = 0, left = 0, timer = 0;

    void cycle(bool level, Noise &noise, std::vector<uint8_t> &bytes) {
        if (!left) {
            if (level) return;
            left = kBits;
            timer = kDivisor / 2;
        }
        if (timer) {
            --timer;
            return;
        }
        bits = bits >> 1 | static_cast<unsigned>(noise.bit(level)) << (kBits - 1);
        timer = kDivisor - 1;
        if (--left) return;
        // A byte without a stop bit is none.
        if (!(bits >> (kBits - 1))) return;
        for (unsigned copies = noise.copies(); copies; --copies) bytes.push_back(bits >> 1 & 0xFF);
    }
};

struct Simulation {
    VerilatedContext context;
    VREX_TOP top{&context};
    Noise noise;
    Sender sender;
    Receiver receiver;
    std::vector<uint8_t> received;
#if HAS_MEMORY
    AxiMemory memory;
    Stalls stalls;
#endif

    void cycle() {
        top.clk = 0;
#if HAS_MEMORY
        memory.drive(top, stalls);
        top.eval();
        // The unit forgets what it asked for, so what is behind its port does as well.
        if (top.memory_reset || top.rst) {
            memory.reset(top);
        } else {
            memory.advance(top);
        }
#else
        top.eval();
#endif
        top.clk = 1;
        top.eval();
    }
};

}  // namespace

extern "C" {

// The board's button; what is on the line goes on.
void vrex_reset(Simulation *sim) {
    sim->top.rx = 1;
    sim->top.rst = 1;
    for (int i = 0; i < kResetCycles; ++i) sim->cycle();
    sim->top.rst = 0;
}

Simulation *vrex_open() {
    auto *sim = new Simulation;
    vrex_reset(sim);
    return sim;
}

void vrex_close(Simulation *sim) {
    sim->top.final();
    delete sim;
}

// Puts a buffer behind the AXI4 port, from an address on; it must outlive the simulation.
void vrex_map(Simulation *sim, uint64_t start, uint64_t size, uint8_t *bytes) {
#if HAS_MEMORY
    sim->memory.ranges[0] = {start, size, bytes};
#endif
}

// Cycles from a read's address, or a write's last data, to the first beat of the answer.
void vrex_set_latency(Simulation *sim, uint64_t cycles) {
#if HAS_MEMORY
    sim->memory.latency = cycles;
#endif
}

// Offences against AXI4 so far.
uint64_t vrex_violations(Simulation *sim) {
#if HAS_MEMORY
    return sim->memory.violations;
#else
    return 0;
#endif
}

// Chances in units of 2^-32 that a bit flips, that a byte gets lost, and that one comes twice.
void vrex_set_noise(Simulation *sim, uint64_t seed, uint32_t flip, uint32_t drop, uint32_t repeat) {
    sim->noise = {seed * 2654435761u + 88172645463325252u, flip, drop, repeat};
}

// Puts bytes on the line and clocks the board `cycles` times, or until there was nothing on the line for `quiet` cycles.
// Returns how often it was clocked. What came back waits in vrex_received.
uint64_t vrex_run(Simulation *sim, const uint8_t *bytes, size_t n, uint64_t cycles, uint64_t quiet) {
    for (size_t i = 0; i < n; ++i) {
        for (unsigned copies = sim->noise.copies(); copies; --copies) sim->sender.bytes.push_back(bytes[i]);
    }
    sim->received.clear();
    uint64_t done = 0;
    for (uint64_t silent = 0; done < cycles && silent < quiet; ++done) {
        sim->sender.cycle(sim->noise);
        sim->top.rx = sim->sender.level;
        sim->cycle();
        sim->receiver.cycle(sim->top.tx, sim->noise, sim->received);
        silent = sim->sender.busy() || sim->receiver.left ? 0 : silent + 1;
    }
    return done;
}

const uint8_t *vrex_received(Simulation *sim, size_t *size) {
    *size = sim->received.size();
    return sim->received.data();
}

// Bytes that are still to go to the board.
size_t vrex_waiting(Simulation *sim) { return sim->sender.bytes.size(); }

// Flipped bits, lost and repeated bytes so far.
void vrex_noise(Simulation *sim, uint64_t *counts) {
    counts[0] = sim->noise.flipped;
    counts[1] = sim->noise.dropped;
    counts[2] = sim->noise.repeated;
}

}  // extern "C"
