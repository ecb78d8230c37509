// Clocks a simulated core, or a chip of several: accesses to its registers, and waiting for its interrupt.
//
// Compiled with VREX_TOP and VREX_HEADER, Verilator's class of it, BUS_BYTES, the width of an AXI4 port, and
// HAS_MEMORY 1; for a chip with EACH_PORT(X), X of the number of each of its AXI4 ports.

#include <cstdint>

#include VREX_HEADER
#include "verilated.h"

#include "harness_memory.h"

namespace {

constexpr int kResetCycles = 4;
constexpr uint64_t kAccessLimit = 100000;

#ifdef EACH_PORT
#define EACH_SIGNAL(X, n)                                                                                          \
    X(n, arvalid) X(n, arready) X(n, araddr) X(n, arid) X(n, arlen) X(n, arsize) X(n, arburst)                     \
    X(n, rvalid) X(n, rready) X(n, rdata) X(n, rid) X(n, rresp) X(n, rlast)                                        \
    X(n, awvalid) X(n, awready) X(n, awaddr) X(n, awid) X(n, awlen) X(n, awsize) X(n, awburst)                     \
    X(n, wvalid) X(n, wready) X(n, wdata) X(n, wstrb) X(n, wlast) X(n, bvalid) X(n, bready) X(n, bid) X(n, bresp)
// Verilator's name of a signal of the chip.
#define SIGNAL(n, name) m_axi___05F##n##_##name
#define DECLARE(n, name) decltype(VREX_TOP::SIGNAL(n, name)) m_axi_##name;
#define BIND(n, name) top.SIGNAL(n, name),
#define PORT(n)                  \
    struct Port##n {             \
        EACH_SIGNAL(DECLARE, n) \
    };
EACH_PORT(PORT)

struct Ports {
#define MEMBER(n) Port##n port##n; AxiMemory memory##n{};
    EACH_PORT(MEMBER)

    // Calls with each port and the memory behind it.
    template <typename Each>
    void each(Each call) {
#define CALL(n) call(port##n, memory##n);
        EACH_PORT(CALL)
    }
};
#define MAKE(n) {EACH_SIGNAL(BIND, n)}, {},
#define PORTS {EACH_PORT(MAKE)}
#else
struct Ports {
    VREX_TOP &port;
    AxiMemory memory{};

    template <typename Each>
    void each(Each call) { call(port, memory); }
};
#define PORTS {top, {}}
#endif

struct Simulation {
    VerilatedContext context;
    VREX_TOP top{&context};
    Stalls stalls;
    Ports ports = PORTS;
    uint64_t cycles = 0;

    // One clock cycle; `sample` sees the outputs before its rising edge.
    template <typename Sample>
    void cycle(Sample sample) {
        ports.each([&](auto &port, AxiMemory &memory) { memory.drive(port, stalls); });
        top.clk = 0;
        top.eval();
        sample();
        ports.each([&](auto &port, AxiMemory &memory) { memory.advance(port); });
        top.clk = 1;
        top.eval();
        ++cycles;
    }

    void reset() {
        // The cores of a chip, models of their own, live in it as long as this simulation.
        Verilated::threadContextp(&context);
        top.s_axi_arvalid = top.s_axi_awvalid = top.s_axi_wvalid = 0;
        top.s_axi_rready = top.s_axi_bready = 0;
        ports.each([&](auto &port, AxiMemory &memory) { memory.reset(port); });
#ifndef EACH_PORT
        top.enable = 1;
#endif
        top.rst = 1;
        for (int i = 0; i < kResetCycles; ++i) {
            top.clk = 0;
            top.eval();
            top.clk = 1;
            top.eval();
        }
        top.rst = 0;
    }
};

}  // namespace

extern "C" {

// `stall` is in units of 2^-16; `seed` may be any number.
Simulation *vrex_open(uint64_t seed, uint32_t stall) {
    auto *sim = new Simulation;
    sim->stalls = {seed * 2654435761u + 88172645463325252u, stall};
    sim->reset();
    return sim;
}

void vrex_close(Simulation *sim) {
    Verilated::threadContextp(&sim->context);
    sim->top.final();
    delete sim;
}

void vrex_reset(Simulation *sim) { sim->reset(); }

// Puts a buffer behind the AXI4 ports, as number 0 or 1; it must outlive the simulation.
void vrex_map(Simulation *sim, size_t number, uint64_t start, uint64_t size, uint8_t *bytes) {
    sim->ports.each([&](auto &, AxiMemory &memory) { memory.ranges[number] = {start, size, bytes}; });
}

// Cycles from a read's address, or a write's last data, to the first beat of the answer.
void vrex_set_latency(Simulation *sim, uint64_t cycles) {
    sim->ports.each([&](auto &, AxiMemory &memory) { memory.latency = cycles; });
}

// Chance in units of 2^-16 that a burst from an address on is answered with an error.
void vrex_set_faults(Simulation *sim, uint64_t seed, uint32_t chance, uint64_t from) {
    sim->ports.each([&](auto &, AxiMemory &memory) {
        memory.faults = {seed++ * 2654435761u + 88172645463325252u, chance};
        memory.faults_from = from;
    });
}

// What the AXI4 ports did against the protocol so far.
uint64_t vrex_violations(Simulation *sim) {
    uint64_t violations = 0;
    sim->ports.each([&](auto &, AxiMemory &memory) { violations += memory.violations; });
    return violations;
}

// The most cycles in a row in which an answer waited to be taken, or (`writes`) memory for beats of a write.
uint64_t vrex_longest_wait(Simulation *sim, int writes) {
    uint64_t longest = 0;
    sim->ports.each([&](auto &, AxiMemory &memory) {
        longest = std::max(longest, writes ? memory.longest_unwritten : memory.longest_untaken);
    });
    return longest;
}

// Writes a register; returns the response, or -1 if none came.
int vrex_write(Simulation *sim, uint32_t address, uint32_t value) {
    VREX_TOP &top = sim->top;
    top.s_axi_awaddr = address;
    top.s_axi_wdata = value;
    top.s_axi_wstrb = 15;
    top.s_axi_awvalid = top.s_axi_wvalid = top.s_axi_bready = 1;
    int response = -1;
    for (uint64_t i = 0; i < kAccessLimit && response < 0; ++i) {
        bool address_taken = false, data_taken = false;
        sim->cycle([&] {
            address_taken = top.s_axi_awvalid && top.s_axi_awready;
            data_taken = top.s_axi_wvalid && top.s_axi_wready;
            if (top.s_axi_bvalid) response = top.s_axi_bresp;
        });
        if (address_taken) top.s_axi_awvalid = 0;
        if (data_taken) top.s_axi_wvalid = 0;
    }
    top.s_axi_bready = 0;
    return response;
}

// Reads a register; returns the response, or -1 if none came.
int vrex_read(Simulation *sim, uint32_t address, uint32_t *value) {
    VREX_TOP &top = sim->top;
    top.s_axi_araddr = address;
    top.s_axi_arvalid = top.s_axi_rready = 1;
    int response = -1;
    for (uint64_t i = 0; i < kAccessLimit && response < 0; ++i) {
        bool taken = false;
        sim->cycle([&] {
            taken = top.s_axi_arvalid && top.s_axi_arready;
            if (top.s_axi_rvalid) {
                response = top.s_axi_rresp;
                *value = top.s_axi_rdata;
            }
        });
        if (taken) top.s_axi_arvalid = 0;
    }
    top.s_axi_rready = 0;
    return response;
}

// Lets the core work until its interrupt is high; returns whether it is, after at most `limit` cycles.
int vrex_wait(Simulation *sim, uint64_t limit) {
    bool irq = false;
    for (uint64_t i = 0; i < limit && !irq; ++i) {
        sim->cycle([&] { irq = sim->top.irq; });
    }
    return irq;
}

// Cycles clocked so far.
uint64_t vrex_cycles(Simulation *sim) { return sim->cycles; }

}  // extern "C"
