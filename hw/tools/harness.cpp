// Clocks a simulated accelerator: one call runs a whole batch of commands.
//
// Compiled with VREX_TOP and VREX_HEADER, Verilator's class of the accelerator, with BUS_BYTES, the width of its data
// streams, DESCRIPTOR_BYTES and COMPLETION_BYTES, and with HAS_MEMORY 1 if it has an AXI4 port and a stream `kv`.
// Descriptors, payloads, results and completions are little-endian bytes, as is the memory of Verilator's wide ports on
// every host it runs on here.

#include <cstdint>
#include <cstring>
#include <vector>

#include VREX_HEADER
#include "verilated.h"

#include "harness_memory.h"

namespace {

constexpr size_t kDescriptorBytes = DESCRIPTOR_BYTES;
constexpr size_t kCompletionBytes = COMPLETION_BYTES;
constexpr int kResetCycles = 4;

// One input stream: items of a fixed size, each held on the port until it is taken.
struct Source {
    const uint8_t *next;
    const uint8_t *end;
    size_t size;
    bool offered = false;

    void offer(Stalls &stalls, void *port) {
        if (offered || next == end || stalls()) return;
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

struct Simulation {
    VerilatedContext context;
    VREX_TOP top{&context};
    Stalls stalls;
    std::vector<uint8_t> results;
    std::vector<uint8_t> completions;
    std::vector<uint8_t> kv;
#if HAS_MEMORY
    AxiMemory memory;
#endif

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

}  // namespace

extern "C" {

void vrex_reset(Simulation *sim) {
    VREX_TOP &top = sim->top;
    top.cmd___05Fvalid = top.din___05Fvalid = top.dout___05Fready = top.cpl___05Fready = 0;
#if HAS_MEMORY
    top.kv___05Fready = 0;
    sim->memory.reset(top);
#endif
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
    sim->stalls = {seed * 2654435761u + 88172645463325252u, stall};
    vrex_reset(sim);
    return sim;
}

void vrex_close(Simulation *sim) {
    sim->top.final();
    delete sim;
}

// Puts a buffer behind the AXI4 port, as number 0 or 1; it must outlive the simulation.
void vrex_map(Simulation *sim, size_t number, uint64_t start, uint64_t size, uint8_t *bytes) {
#if HAS_MEMORY
    sim->memory.ranges[number] = {start, size, bytes};
#endif
}

// Cycles from a read's address, or a write's last data, to the first beat of the answer.
void vrex_set_latency(Simulation *sim, uint64_t cycles) {
#if HAS_MEMORY
    sim->memory.latency = cycles;
#endif
}

// Runs `n` commands until `ends` completions have come; gives up when `limit` cycles pass without one. Returns 1 if
// all came and every byte of payload was taken. What came back waits in vrex_results, vrex_completions and vrex_kv.
int vrex_run(Simulation *sim, const uint8_t *descriptors, size_t n, size_t ends, const uint8_t *payload,
             size_t payload_bytes, uint64_t limit) {
    VREX_TOP &top = sim->top;
    Stalls &stalls = sim->stalls;
    Source commands{descriptors, descriptors + n * kDescriptorBytes, kDescriptorBytes};
    Source data{payload, payload + payload_bytes, BUS_BYTES};
    sim->results.clear();
    sim->completions.clear();
    sim->kv.clear();
    for (uint64_t idle = 0; sim->completions.size() < ends * kCompletionBytes && idle < limit; ++idle) {
        commands.offer(stalls, &top.cmd___05Fpayload);
        data.offer(stalls, &top.din___05Fpayload);
        top.cmd___05Fvalid = commands.offered;
        top.din___05Fvalid = data.offered;
        top.dout___05Fready = !stalls();
        top.cpl___05Fready = !stalls();
#if HAS_MEMORY
        top.kv___05Fready = !stalls();
        sim->memory.drive(top, stalls);
#endif
        sim->settle();
        commands.advance(top.cmd___05Fvalid && top.cmd___05Fready);
        data.advance(top.din___05Fvalid && top.din___05Fready);
        if (top.dout___05Fvalid && top.dout___05Fready) append(sim->results, &top.dout___05Fpayload, BUS_BYTES);
        if (top.cpl___05Fvalid && top.cpl___05Fready) {
            append(sim->completions, &top.cpl___05Fpayload, kCompletionBytes);
            idle = 0;
        }
#if HAS_MEMORY
        if (top.kv___05Fvalid && top.kv___05Fready) append(sim->kv, &top.kv___05Fpayload, BUS_BYTES);
        sim->memory.advance(top);
#endif
        sim->tick();
    }
    return sim->completions.size() == ends * kCompletionBytes && commands.next == commands.end &&
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

const uint8_t *vrex_kv(Simulation *sim, size_t *size) {
    *size = sim->kv.size();
    return sim->kv.data();
}

}  // extern "C"
