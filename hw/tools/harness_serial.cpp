// Clocks a simulated board behind a serial line: bytes in, bytes out.
//
// Compiled with VREX_TOP and VREX_HEADER, Verilator's class of the board, and with HAS_MEMORY and BUS_BYTES. With DIVISOR,
// clock cycles of a bit, bytes go bit by bit over its pins; where that is 0 it has no UART, and they are BYTE_CYCLES apart. The line is what is noisy here: bits that flip, bytes that get lost, bytes that come twice,
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

#if DIVISOR
// The line at the pins: bits.
class Line {
  public:
    std::deque<uint8_t> to_board;
    std::vector<uint8_t> from_board;

    bool busy() const { return left_out_ || !to_board.empty() || left_in_; }

    // Holds the board's rx.
    template <typename Top>
    void drive(Top &top, Noise &noise) {
        if (timer_out_) {
            --timer_out_;
        } else {
            if (!left_out_ && !to_board.empty()) {
                bits_out_ = to_board.front() << 1 | 1u << (kBits - 1);
                to_board.pop_front();
                left_out_ = kBits;
            }
            level_ = true;
            if (left_out_) {
                level_ = noise.bit(bits_out_ & 1);
                bits_out_ >>= 1;
                --left_out_;
                timer_out_ = DIVISOR - 1;
            }
        }
        top.rx = level_;
    }

    template <typename Top>
    void before_edge(Top &, Noise &) {}

    // Samples the board's tx in the middle of each bit.
    template <typename Top>
    void after_edge(Top &top, Noise &noise) {
        if (!left_in_) {
            if (top.tx) return;
            left_in_ = kBits;
            timer_in_ = DIVISOR / 2;
        }
        if (timer_in_) {
            --timer_in_;
            return;
        }
        bits_in_ = bits_in_ >> 1 | static_cast<unsigned>(noise.bit(top.tx)) << (kBits - 1);
        timer_in_ = DIVISOR - 1;
        if (--left_in_) return;
        // A byte without a stop bit is none.
        if (!(bits_in_ >> (kBits - 1))) return;
        for (unsigned copies = noise.copies(); copies; --copies) from_board.push_back(bits_in_ >> 1 & 0xFF);
    }

    template <typename Top>
    void release(Top &top) {
        top.rx = 1;
    }

  private:
    unsigned bits_out_ = 0, left_out_ = 0, timer_out_ = 0;
    unsigned bits_in_ = 0, left_in_ = 0, timer_in_ = 0;
    bool level_ = true;
};
#else
// The line behind the UART: bytes, whose bits flip as if they had been on it.
class Line {
  public:
    std::deque<uint8_t> to_board;
    std::vector<uint8_t> from_board;

    bool busy() const { return !to_board.empty() || timer_out_ || timer_in_; }

    template <typename Top>
    void drive(Top &top, Noise &noise) {
        top.received___05Fvalid = 0;
        if (timer_out_) {
            --timer_out_;
        } else if (!to_board.empty()) {
            top.received___05Fvalid = over(to_board.front(), noise, top.received___05Fpayload);
            to_board.pop_front();
            timer_out_ = BYTE_CYCLES - 1;
        }
        timer_in_ -= timer_in_ != 0;
        top.send___05Fready = timer_in_ == 0;
    }

    template <typename Top>
    void before_edge(Top &top, Noise &noise) {
        if (!top.send___05Fvalid || !top.send___05Fready) return;
        timer_in_ = BYTE_CYCLES;
        uint8_t byte;
        if (!over(top.send___05Fpayload, noise, byte)) return;
        for (unsigned copies = noise.copies(); copies; --copies) from_board.push_back(byte);
    }

    template <typename Top>
    void after_edge(Top &, Noise &) {}

    template <typename Top>
    void release(Top &top) {
        top.received___05Fvalid = top.send___05Fready = 0;
    }

  private:
    // What arrives of a byte; nothing without its start and stop bits.
    static bool over(uint8_t byte, Noise &noise, uint8_t &arrived) {
        unsigned bits = byte << 1 | 1u << (kBits - 1), flipped = 0;
        for (unsigned i = 0; i < kBits; ++i) flipped |= noise.bit(bits >> i & 1) << i;
        arrived = flipped >> 1 & 0xFF;
        return (flipped & 1) == 0 && flipped >> (kBits - 1);
    }

    unsigned timer_out_ = 0, timer_in_ = 0;
};
#endif

struct Simulation {
    VerilatedContext context;
    VREX_TOP top{&context};
    Noise noise;
    Line line;
#if HAS_MEMORY
    AxiMemory memory;
    Stalls stalls;
#endif

    void cycle() {
        top.clk = 0;
#if HAS_MEMORY
        memory.drive(top, stalls);
#endif
        top.eval();
        line.before_edge(top, noise);
#if HAS_MEMORY
        // The unit forgets what it asked for, so what is behind its port does as well.
        if (top.memory_reset || top.rst) {
            memory.reset(top);
        } else {
            memory.advance(top);
        }
#endif
        top.clk = 1;
        top.eval();
    }
};

}  // namespace

extern "C" {

// The board's button; what is on the line goes on.
void vrex_reset(Simulation *sim) {
    sim->line.release(sim->top);
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
        for (unsigned copies = sim->noise.copies(); copies; --copies) sim->line.to_board.push_back(bytes[i]);
    }
    sim->line.from_board.clear();
    uint64_t done = 0;
    for (uint64_t silent = 0; done < cycles && silent < quiet; ++done) {
        sim->line.drive(sim->top, sim->noise);
        sim->cycle();
        sim->line.after_edge(sim->top, sim->noise);
        silent = sim->line.busy() ? 0 : silent + 1;
    }
    return done;
}

const uint8_t *vrex_received(Simulation *sim, size_t *size) {
    *size = sim->line.from_board.size();
    return sim->line.from_board.data();
}

// Bytes that are still to go to the board.
size_t vrex_waiting(Simulation *sim) { return sim->line.to_board.size(); }

// Flipped bits, lost and repeated bytes so far.
void vrex_noise(Simulation *sim, uint64_t *counts) {
    counts[0] = sim->noise.flipped;
    counts[1] = sim->noise.dropped;
    counts[2] = sim->noise.repeated;
}

}  // extern "C"
