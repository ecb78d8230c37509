// Clocks a simulated accelerator: one call runs a whole batch of commands.
//
// Compiled with VREX_TOP and VREX_HEADER, Verilator's class of the accelerator, with BUS_BYTES, the width of its data
// streams, DESCRIPTOR_BYTES and COMPLETION_BYTES, and with HAS_MEMORY 1 if it has an AXI4 port and a stream `kv`.
// Descriptors, payloads, results and completions are little-endian bytes, as is the memory of Verilator's wide ports on
// every host it runs on here.

#include <array>
#include <cstdint>
#include <cstring>
#include <deque>
#include <vector>

#include VREX_HEADER
#include "verilated.h"

namespace {

constexpr size_t kDescriptorBytes = DESCRIPTOR_BYTES;
constexpr size_t kCompletionBytes = COMPLETION_BYTES;
constexpr int kResetCycles = 4;

// Whether a port of the host's stalls in this cycle.
struct Stalls {
    uint64_t random = 0;
    uint32_t chance = 0;  // in units of 2^-16

    bool operator()() {
        if (chance == 0) return false;
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        return (random >> 16 & 0xFFFF) < chance;
    }
};

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

#if HAS_MEMORY
// The numpy buffers behind the AXI4 port. Reads are answered after a latency, those of an id in order; with
// stalls, those of different ids in any order. A beat that is in no buffer is answered with DECERR.
class AxiMemory {
  public:
    struct Range {
        uint64_t start, size;
        uint8_t *bytes;
    };

    std::array<Range, 2> ranges{};
    uint64_t latency = 0;

    void reset(VREX_TOP &top) {
        reads_.clear();
        writes_.clear();
        responses_.clear();
        current_ = kNone;
        reading_ = responding_ = failed_ = false;
        top.m_axi_arready = top.m_axi_rvalid = 0;
        top.m_axi_awready = top.m_axi_wready = top.m_axi_bvalid = 0;
    }

    // Sets the port's inputs for this cycle.
    void drive(VREX_TOP &top, Stalls &stalls) {
        ++now_;
        top.m_axi_arready = reads_.size() < kQueue && !stalls();
        top.m_axi_awready = writes_.size() < kQueue && !stalls();
        top.m_axi_wready = !writes_.empty() && !stalls();
        if (!reading_ && !stalls()) start_beat(top, stalls);
        top.m_axi_rvalid = reading_;
        if (!responding_ && !responses_.empty() && responses_.front().ready <= now_ && !stalls()) {
            top.m_axi_bid = responses_.front().id;
            top.m_axi_bresp = responses_.front().response;
            responding_ = true;
        }
        top.m_axi_bvalid = responding_;
    }

    // Takes what moved in this cycle.
    void advance(VREX_TOP &top) {
        if (top.m_axi_rvalid && top.m_axi_rready) {
            reading_ = false;
            if (--reads_[current_].beats == 0) {
                reads_.erase(reads_.begin() + current_);
                current_ = kNone;
            }
        }
        if (top.m_axi_bvalid && top.m_axi_bready) {
            responding_ = false;
            responses_.pop_front();
        }
        if (top.m_axi_wvalid && top.m_axi_wready) write_beat(top);
        if (top.m_axi_arvalid && top.m_axi_arready) {
            reads_.push_back({top.m_axi_arid, top.m_axi_araddr, top.m_axi_arlen + 1u, now_ + latency});
        }
        if (top.m_axi_awvalid && top.m_axi_awready) {
            writes_.push_back({top.m_axi_awid, top.m_axi_awaddr, top.m_axi_awlen + 1u, 0});
        }
    }

  private:
    static constexpr size_t kQueue = 64;
    static constexpr size_t kNone = ~size_t{0};
    static constexpr uint8_t kOkay = 0, kDecodeError = 3;

    struct Burst {
        uint8_t id;
        uint64_t address;
        unsigned beats;
        uint64_t ready;
    };
    struct Response {
        uint8_t id, response;
        uint64_t ready;
    };

    // The buffer's bytes of the beat at an address, or none.
    uint8_t *beat(uint64_t address) {
        address -= address % BUS_BYTES;
        for (const Range &range : ranges) {
            const uint64_t offset = address - range.start;
            if (offset < range.size && range.size - offset >= BUS_BYTES) return range.bytes + offset;
        }
        return nullptr;
    }

    // The oldest read of an id that may be answered: the first of all, or with stalls a random one.
    size_t pick(Stalls &stalls) {
        size_t found = kNone;
        uint32_t seen = 0;
        for (size_t i = 0; i < reads_.size(); ++i) {
            const bool first_of_id = !(seen >> reads_[i].id & 1);
            seen |= 1u << reads_[i].id;
            if (!first_of_id || reads_[i].ready > now_) continue;
            if (found == kNone || stalls()) found = i;
            if (stalls.chance == 0) break;
        }
        return found;
    }

    void start_beat(VREX_TOP &top, Stalls &stalls) {
        if (current_ == kNone) current_ = pick(stalls);
        if (current_ == kNone) return;
        Burst &burst = reads_[current_];
        const uint8_t *bytes = beat(burst.address);
        if (bytes) std::memcpy(&top.m_axi_rdata, bytes, BUS_BYTES);
        top.m_axi_rresp = bytes ? kOkay : kDecodeError;
        top.m_axi_rid = burst.id;
        top.m_axi_rlast = burst.beats == 1;
        burst.address += BUS_BYTES;
        reading_ = true;
    }

    void write_beat(VREX_TOP &top) {
        Burst &burst = writes_.front();
        uint8_t *bytes = beat(burst.address);
        const auto *data = reinterpret_cast<const uint8_t *>(&top.m_axi_wdata);
        for (size_t i = 0; bytes && i < BUS_BYTES; ++i) {
            if (static_cast<uint64_t>(top.m_axi_wstrb) >> i & 1) bytes[i] = data[i];
        }
        failed_ |= bytes == nullptr;
        burst.address += BUS_BYTES;
        if (--burst.beats) return;
        responses_.push_back({burst.id, failed_ ? kDecodeError : kOkay, now_ + latency});
        failed_ = false;
        writes_.pop_front();
    }

    std::deque<Burst> reads_, writes_;
    std::deque<Response> responses_;
    size_t current_ = kNone;
    uint64_t now_ = 0;
    bool reading_ = false, responding_ = false, failed_ = false;
};
#endif

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
