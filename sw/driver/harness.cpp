// Clocks the simulated KVPU: one call runs a whole batch of commands.
//
// Compiled with BUS_BYTES, the width of the data streams. Descriptors, payloads, results and completions
// are little-endian bytes, as is the memory of Verilator's wide ports on every host it runs on here.

#include <cstdint>
#include <cstring>
#include <vector>

#include "Vkvpu.h"
#include "verilated.h"

namespace {

constexpr size_t kDescriptorBytes = 32;
constexpr size_t kCompletionBytes = 16;
constexpr int kResetCycles = 4;

struct Simulation {
    VerilatedContext context;
    Vkvpu top{&context};
    std::vector<uint8_t> results;
    std::vector<uint8_t> completions;
    uint64_t random = 0;
    uint32_t stall = 0;  // chance of a stall per port and cycle, in units of 2^-16

    bool stalls() {
        if (stall == 0) return false;
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        return (random >> 16 & 0xFFFF) < stall;
    }

    // Lets outputs settle on this cycle's inputs.
    void settle() {
        top.clk = 0;
        top.eval();
    }

    void tick() {
        top.clk = 1;
        top.eval();
    }
};

// One input stream: items of a fixed size, each held on the port until it is taken.
struct Source {
    const uint8_t *next;
    const uint8_t *end;
    size_t size;
    bool offered = false;

    void offer(Simulation &sim, void *port) {
        if (offered || next == end || sim.stalls()) return;
        std::memcpy(port, next, size);
        offered = true;
    }

    void advance(bool taken) {
        if (!taken) return;
        next += size;
        offered = false;
    }
};

void append(std::vector<uint8_t> &bytes, const void *port, size_t size) {
    const auto *first = static_cast<const uint8_t *>(port);
    bytes.insert(bytes.end(), first, first + size);
}

}  // namespace

extern "C" {

void vrex_reset(Simulation *sim) {
    Vkvpu &top = sim->top;
    top.cmd___05Fvalid = top.din___05Fvalid = top.dout___05Fready = top.cpl___05Fready = 0;
    top.rst = 1;
    for (int cycle = 0; cycle < kResetCycles; ++cycle) {
        sim->settle();
        sim->tick();
    }
    top.rst = 0;
}

// `stall` is in units of 2^-16; `seed` may be any number.
Simulation *vrex_open(uint64_t seed, uint32_t stall) {
    auto *sim = new Simulation;
    sim->random = seed * 2654435761u + 88172645463325252u;
    sim->stall = stall;
    vrex_reset(sim);
    return sim;
}

void vrex_close(Simulation *sim) {
    sim->top.final();
    delete sim;
}

// Runs `n` commands; gives up when `limit` cycles pass without a completion. Returns 1 if every command
// completed and every byte of payload was taken. What came back waits in vrex_results/vrex_completions.
int vrex_run(Simulation *sim, const uint8_t *descriptors, size_t n, const uint8_t *payload,
             size_t payload_bytes, uint64_t limit) {
    Vkvpu &top = sim->top;
    Source commands{descriptors, descriptors + n * kDescriptorBytes, kDescriptorBytes};
    Source data{payload, payload + payload_bytes, BUS_BYTES};
    sim->results.clear();
    sim->completions.clear();
    for (uint64_t idle = 0; sim->completions.size() < n * kCompletionBytes && idle < limit; ++idle) {
        commands.offer(*sim, &top.cmd___05Fpayload);
        data.offer(*sim, &top.din___05Fpayload);
        top.cmd___05Fvalid = commands.offered;
        top.din___05Fvalid = data.offered;
        top.dout___05Fready = !sim->stalls();
        top.cpl___05Fready = !sim->stalls();
        sim->settle();
        commands.advance(top.cmd___05Fvalid && top.cmd___05Fready);
        data.advance(top.din___05Fvalid && top.din___05Fready);
        if (top.dout___05Fvalid && top.dout___05Fready) append(sim->results, &top.dout___05Fpayload, BUS_BYTES);
        if (top.cpl___05Fvalid && top.cpl___05Fready) {
            append(sim->completions, &top.cpl___05Fpayload, kCompletionBytes);
            idle = 0;
        }
        sim->tick();
    }
    return sim->completions.size() == n * kCompletionBytes && commands.next == commands.end &&
           data.next == data.end;
}

const uint8_t *vrex_results(Simulation *sim, size_t *size) {
    *size = sim->results.size();
    return sim->results.data();
}

const uint8_t *vrex_completions(Simulation *sim, size_t *size) {
    *size = sim->completions.size();
    return sim->completions.data();
}

}  // extern "C"
