// What the simulated accelerators have in common: stalls at random, and the memory behind an AXI4 port.
//
// Included once, behind BUS_BYTES, the width of the port. A port is what has its signals by their names: Verilator's
// class of the accelerator, or of one port of several.

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <deque>

namespace {

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

#if HAS_MEMORY
// The numpy buffers behind the AXI4 port. Reads are answered after a latency, those of an id in order; with
// stalls, those of different ids in any order. A beat that is in no buffer is answered with DECERR. Bursts from
// `faults_from` on are answered with SLVERR by chance, and then neither read nor written. What the port does against
// the protocol is counted: a payload that changes while it waits, a burst that is not INCR, of whole beats and within
// 4 KiB, a `last` in the wrong place.
class AxiMemory {
  public:
    struct Range {
        uint64_t start, size;
        uint8_t *bytes;
    };

    std::array<Range, 2> ranges{};
    uint64_t latency = 0;
    Stalls faults;
    uint64_t faults_from = 0;
    uint64_t violations = 0;
    // The most cycles in a row in which an answer waited to be taken, and in which beats of a write were waited for.
    uint64_t longest_untaken = 0, longest_unwritten = 0;

    template <typename Port>
    void reset(Port &top) {
        reads_.clear();
        writes_.clear();
        responses_.clear();
        current_ = kNone;
        reading_ = responding_ = failed_ = false;
        untaken_ = unwritten_ = 0;
        waiting_ = {};
        top.m_axi_arready = top.m_axi_rvalid = 0;
        top.m_axi_awready = top.m_axi_wready = top.m_axi_bvalid = 0;
    }

    // Sets the port's inputs for this cycle.
    template <typename Port>
    void drive(Port &top, Stalls &stalls) {
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
    template <typename Port>
    void advance(Port &top) {
        check(top);
        const bool untaken = (top.m_axi_rvalid && !top.m_axi_rready) || (top.m_axi_bvalid && !top.m_axi_bready);
        untaken_ = untaken ? untaken_ + 1 : 0;
        unwritten_ = !writes_.empty() && !top.m_axi_wvalid ? unwritten_ + 1 : 0;
        longest_untaken = std::max(longest_untaken, untaken_);
        longest_unwritten = std::max(longest_unwritten, unwritten_);
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
            reads_.push_back({top.m_axi_arid, top.m_axi_araddr, top.m_axi_arlen + 1u, now_ + latency,
                              fails(top.m_axi_araddr)});
        }
        if (top.m_axi_awvalid && top.m_axi_awready) {
            writes_.push_back({top.m_axi_awid, top.m_axi_awaddr, top.m_axi_awlen + 1u, 0, fails(top.m_axi_awaddr)});
        }
    }

  private:
    static constexpr size_t kQueue = 64;
    static constexpr size_t kNone = ~size_t{0};
    static constexpr size_t kIds = 1 << 12;
    static constexpr uint8_t kOkay = 0, kSlaveError = 2, kDecodeError = 3;
    static constexpr unsigned kIncr = 1, kPage = 4096;

    // What a channel shows while it waits for its ready, and whether it does.
    struct Waiting {
        bool valid = false;
        std::array<uint8_t, 8 + 4 + BUS_BYTES> payload{};
    };

    struct Burst {
        uint16_t id;
        uint64_t address;
        unsigned beats;
        uint64_t ready;
        bool fails;
    };
    struct Response {
        uint16_t id;
        uint8_t response;
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
        ++picks_;
        for (size_t i = 0; i < reads_.size(); ++i) {
            uint64_t &seen = seen_[reads_[i].id % kIds];
            const bool first_of_id = seen != picks_;
            seen = picks_;
            if (!first_of_id || reads_[i].ready > now_) continue;
            if (found == kNone || stalls()) found = i;
            if (stalls.chance == 0) break;
        }
        return found;
    }

    template <typename Port>
    void start_beat(Port &top, Stalls &stalls) {
        if (current_ == kNone) current_ = pick(stalls);
        if (current_ == kNone) return;
        Burst &burst = reads_[current_];
        const uint8_t *bytes = beat(burst.address);
        if (bytes && !burst.fails) std::memcpy(&top.m_axi_rdata, bytes, BUS_BYTES);
        top.m_axi_rresp = burst.fails ? kSlaveError : bytes ? kOkay : kDecodeError;
        top.m_axi_rid = burst.id;
        top.m_axi_rlast = burst.beats == 1;
        burst.address += BUS_BYTES;
        reading_ = true;
    }

    template <typename Port>
    void write_beat(Port &top) {
        Burst &burst = writes_.front();
        violations += static_cast<bool>(top.m_axi_wlast) != (burst.beats == 1);
        uint8_t *bytes = beat(burst.address);
        const auto *data = reinterpret_cast<const uint8_t *>(&top.m_axi_wdata);
        for (size_t i = 0; bytes && !burst.fails && i < BUS_BYTES; ++i) {
            if (static_cast<uint64_t>(top.m_axi_wstrb) >> i & 1) bytes[i] = data[i];
        }
        failed_ |= bytes == nullptr;
        burst.address += BUS_BYTES;
        if (--burst.beats) return;
        const uint8_t response = burst.fails ? kSlaveError : failed_ ? kDecodeError : kOkay;
        responses_.push_back({burst.id, response, now_ + latency});
        failed_ = false;
        writes_.pop_front();
    }

    // Whether a burst is to be answered with an error.
    bool fails(uint64_t address) { return address >= faults_from && faults(); }

    // Counts what the port does against the protocol in this cycle.
    template <typename Port>
    void check(Port &top) {
        violations += top.m_axi_arvalid && !legal(top.m_axi_araddr, top.m_axi_arlen, top.m_axi_arsize, top.m_axi_arburst);
        violations += top.m_axi_awvalid && !legal(top.m_axi_awaddr, top.m_axi_awlen, top.m_axi_awsize, top.m_axi_awburst);
        stays(waiting_[0], top.m_axi_arvalid, top.m_axi_arready, top.m_axi_araddr,
              top.m_axi_arid | top.m_axi_arlen << 16, nullptr);
        stays(waiting_[1], top.m_axi_awvalid, top.m_axi_awready, top.m_axi_awaddr,
              top.m_axi_awid | top.m_axi_awlen << 16, nullptr);
        stays(waiting_[2], top.m_axi_wvalid, top.m_axi_wready, top.m_axi_wstrb, top.m_axi_wlast, &top.m_axi_wdata);
    }

    static bool legal(uint64_t address, unsigned length, unsigned size, unsigned burst) {
        const uint64_t bytes = (length + 1u) * uint64_t{BUS_BYTES};
        return burst == kIncr && 1u << size == BUS_BYTES && address % BUS_BYTES == 0 &&
               address % kPage + bytes <= kPage;
    }

    // A channel that waited must still show the same.
    void stays(Waiting &before, bool valid, bool ready, uint64_t first, uint32_t second, const void *data) {
        Waiting now;
        now.valid = valid && !ready;
        std::memcpy(now.payload.data(), &first, 8);
        std::memcpy(now.payload.data() + 8, &second, 4);
        if (data) std::memcpy(now.payload.data() + 12, data, BUS_BYTES);
        violations += before.valid && (!valid || now.payload != before.payload);
        before = now;
    }

    std::array<Waiting, 3> waiting_{};
    std::deque<Burst> reads_, writes_;
    std::deque<Response> responses_;
    size_t current_ = kNone;
    uint64_t now_ = 0, picks_ = 0, untaken_ = 0, unwritten_ = 0;
    // When an id was last seen in `pick`.
    std::array<uint64_t, kIds> seen_{};
    bool reading_ = false, responding_ = false, failed_ = false;
};
#endif

}  // namespace
