#include "dram.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <string>
#include <vector>

#include "svdpi.h"

namespace dram {
namespace {

[[noreturn]] void die(const std::string& what) {
    fprintf(stderr, "DRAM: %s\n", what.c_str());
    exit(3);
}

// Parameters come as name=value, separated by semicolons, in TERNTABLE_DRAM (sim/dram.py).
struct Settings {
    uint64_t base = 0;
    double bytes_per_cycle = 56;
    int latency = 38;          // cycles from the address to the first beat
    int min_burst = 64;        // bytes that a burst is charged at least
    int outstanding = 16;      // bursts in flight, a port and direction
    bool stress = false;
    uint64_t seed = 0;
    struct Range { uint64_t first, end; };
    std::vector<Range> errors;  // offsets that answer SLVERR

    Settings() {
        const char* text = getenv("TERNTABLE_DRAM");
        if (!text) return;
        std::string all(text);
        size_t at = 0;
        while (at < all.size()) {
            size_t end = all.find(';', at);
            if (end == std::string::npos) end = all.size();
            set(all.substr(at, end - at));
            at = end + 1;
        }
    }

    void set(const std::string& item) {
        const size_t equals = item.find('=');
        if (equals == std::string::npos) die("no value in setting " + item);
        const std::string name = item.substr(0, equals);
        const char* value = item.c_str() + equals + 1;
        if (name == "base") base = strtoull(value, nullptr, 0);
        else if (name == "bytes_per_cycle") bytes_per_cycle = strtod(value, nullptr);
        else if (name == "latency") latency = atoi(value);
        else if (name == "min_burst") min_burst = atoi(value);
        else if (name == "outstanding") outstanding = atoi(value);
        else if (name == "stress") { stress = true; seed = strtoull(value, nullptr, 0); }
        else if (name == "error") {
            char* rest;
            const uint64_t first = strtoull(value, &rest, 0);
            const uint64_t size = strtoull(*rest ? rest + 1 : rest, nullptr, 0);
            errors.push_back({first, first + size});
        } else die("unknown setting " + name);
    }
};

struct Burst {
    uint64_t offset;  // from the file's start
    int beats, beat;
    uint32_t id, resp;
    int64_t when;     // cycle from which the first beat (reads) may be shown
};

struct Answer { uint32_t id, resp; int64_t when; };

struct Port {
    std::deque<Burst> reads, writes;
    std::deque<Answer> answers;
    std::deque<std::vector<uint32_t>> data;  // strobes, last, then the words of a write beat
    std::vector<uint32_t> before;            // last clock's inputs
    std::vector<uint32_t> shown;             // read data
    uint32_t flags = 0;                      // output flags that this clock's inputs answer
    uint32_t ready_before = 0;               // those of the clock before
    int stall[5] = {};                       // AR, R, AW, W, B: cycles to go
};

enum Channel { AR, R, AW, W, B };

class Model {
  public:
    Model(int ports, int bus_bytes) : bytes_(bus_bytes), words_(bus_bytes / 4), ports_(ports) {
        const char* number = getenv("TERNTABLE_DRAM_FD");
        const int fd = number ? atoi(number) : -1;
        struct stat info;
        if (fd < 0 || fstat(fd, &info)) die("TERNTABLE_DRAM_FD names no open file");
        size_ = info.st_size;
        void* at = mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (at == MAP_FAILED) die("can't map the memory's file");
        memory_ = static_cast<uint8_t*>(at);
        random_ = s_.seed * 0x9E3779B97F4A7C15ull + 0x1234567ull;
        for (Port& p : ports_) p = fresh();
    }

    int in_words() const { return IN_WDATA + words_; }
    int out_words() const { return OUT_RDATA + words_; }

    void clock(bool running, const uint32_t* in, uint32_t* out) {
        ++cycle_;
        tokens_ += s_.bytes_per_cycle;
        if (tokens_ > BUCKET) tokens_ = BUCKET;
        const int n = ports_.size();
        if (!running) {
            for (int p = 0; p < n; ++p) {
                ports_[p] = fresh();
                memset(out + p * out_words(), 0, out_words() * 4);
            }
            if (fault_) out[0] |= FAULT;
            return;
        }
        // Ports share the tokens evenly: the first that found none is the first next time.
        denied_ = -1;
        for (int k = 0, p = first_; k < n; ++k) {
            step(p, in + p * in_words(), out + p * out_words());
            if (++p == n) p = 0;
        }
        if (denied_ >= 0) first_ = denied_;
        if (fault_) out[0] |= FAULT;
    }

  private:
    static constexpr double BUCKET = 256;  // bytes that idle cycles save up
    static constexpr size_t WRITE_BEATS = 32;

    Port fresh() const {
        Port p;
        p.before.assign(in_words(), 0);
        p.shown.assign(words_, 0);
        return p;
    }

    void step(int number, const uint32_t* in, uint32_t* out) {
        Port& p = ports_[number];
        const uint32_t flags = in[IN_FLAGS];
        check_held(number, in);

        // What the edge transferred.
        if ((p.flags & ARREADY) && (flags & ARVALID)) {
            const uint64_t address = in[IN_ARADDR] | uint64_t(in[IN_HIGH] >> 16 & 0xFF) << 32;
            p.reads.push_back(burst(number, "read", address, in[IN_HIGH] & 0xFF,
                                    flags >> ARSIZE & 7, flags >> ARBURST & 3,
                                    (flags & ARID) != 0));
        }
        if ((p.flags & AWREADY) && (flags & AWVALID)) {
            const uint64_t address = in[IN_AWADDR] | uint64_t(in[IN_HIGH] >> 24) << 32;
            p.writes.push_back(burst(number, "write", address, in[IN_HIGH] >> 8 & 0xFF,
                                     flags >> AWSIZE & 7, flags >> AWBURST & 3,
                                     (flags & AWID) != 0));
        }
        if ((p.flags & WREADY) && (flags & WVALID)) {
            std::vector<uint32_t> beat(2 + words_);
            beat[0] = in[IN_WSTRB];
            beat[1] = (flags & WLAST) != 0;
            memcpy(&beat[2], in + IN_WDATA, bytes_);
            p.data.push_back(std::move(beat));
        }
        uint32_t next = 0;
        if ((p.flags & RVALID) && !(flags & RREADY)) {
            next |= p.flags & (RVALID | RLAST | RID | 3u << RRESP);
        }
        if ((p.flags & BVALID) && !(flags & BREADY)) {
            next |= p.flags & (BVALID | BID | 3u << BRESP);
        }

        if (!p.writes.empty() && !p.data.empty() && granted(number)) write_beat(number, p);
        if (!(next & BVALID) && !p.answers.empty() && p.answers.front().when <= cycle_ &&
            !stalled(p, B)) {
            const Answer a = p.answers.front();
            p.answers.pop_front();
            next |= BVALID | (a.id ? BID : 0) | a.resp << BRESP;
        }
        if (!(next & RVALID) && !p.reads.empty() && p.reads.front().when <= cycle_ &&
            !stalled(p, R) && granted(number)) {
            next |= read_beat(p);
        }
        const size_t most = s_.outstanding;
        if (p.reads.size() < most && !stalled(p, AR)) next |= ARREADY;
        if (p.writes.size() + p.answers.size() < most && !stalled(p, AW)) next |= AWREADY;
        if (p.data.size() < WRITE_BEATS && !stalled(p, W)) next |= WREADY;
        p.ready_before = p.flags;
        p.flags = out[OUT_FLAGS] = next;
        memcpy(out + OUT_RDATA, p.shown.data(), bytes_);
        memcpy(p.before.data(), in, in_words() * 4);
    }

    Burst burst(int port, const char* kind, uint64_t address, int len, int size, int type, int id) {
        const uint64_t length = uint64_t(len + 1) * bytes_;
        char at[64];
        snprintf(at, sizeof at, "%s burst of %d at 0x%llx ", kind, len + 1,
                 static_cast<unsigned long long>(address));
        if (1 << size != bytes_) fault(port, std::string(at) + "is narrower than the bus");
        if (type != 1) fault(port, std::string(at) + "is not incrementing");
        if (address % bytes_) fault(port, std::string(at) + "is not aligned to the bus");
        if ((address ^ (address + length - 1)) >> 12) fault(port, std::string(at) + "crosses 4 KiB");
        Burst b{address - s_.base, len + 1, 0, uint32_t(id), OKAY, cycle_ + s_.latency - 1};
        if (s_.stress) b.when += next_random() % (s_.latency + 1);
        if (address < s_.base || b.offset + length > size_) {
            b.resp = DECERR;
        } else {
            for (const auto& e : s_.errors) {
                if (b.offset < e.end && b.offset + length > e.first) b.resp = SLVERR;
            }
        }
        return b;
    }

    uint32_t read_beat(Port& p) {
        uint32_t* data = p.shown.data();
        Burst& b = p.reads.front();
        charge(b);
        if (b.resp == OKAY) {
            memcpy(data, memory_ + b.offset + uint64_t(b.beat) * bytes_, bytes_);
        } else {
            memset(data, 0xEE, bytes_);
        }
        uint32_t flags = RVALID | (b.id ? RID : 0) | b.resp << RRESP;
        if (++b.beat == b.beats) {
            flags |= RLAST;
            p.reads.pop_front();
        }
        return flags;
    }

    void write_beat(int number, Port& p) {
        Burst& b = p.writes.front();
        const std::vector<uint32_t> beat = std::move(p.data.front());
        p.data.pop_front();
        charge(b);
        if (b.resp == OKAY) {
            uint8_t* to = memory_ + b.offset + uint64_t(b.beat) * bytes_;
            const auto* from = reinterpret_cast<const uint8_t*>(&beat[2]);
            for (int i = 0; i < bytes_; ++i) {
                if (beat[0] >> i & 1) to[i] = from[i];
            }
        }
        const bool last = ++b.beat == b.beats;
        if (last != (beat[1] != 0)) fault(number, "wlast is not at the burst's end");
        if (last) {
            p.answers.push_back({b.id, b.resp, cycle_ + s_.latency - 1});
            p.writes.pop_front();
        }
    }

    void charge(const Burst& b) {
        tokens_ -= bytes_;
        if (b.beat == 0 && b.beats * bytes_ < s_.min_burst) tokens_ -= s_.min_burst - b.beats * bytes_;
    }

    // A valid that no ready answered stays, and so does what it says.
    void check_held(int number, const uint32_t* in) {
        const Port& p = ports_[number];
        const uint32_t* was = p.before.data();
        const uint32_t waiting = was[IN_FLAGS] & (ARVALID | AWVALID | WVALID);
        if (!waiting) return;
        const uint32_t changed = was[IN_FLAGS] ^ in[IN_FLAGS];
        const uint32_t high = was[IN_HIGH] ^ in[IN_HIGH];
        if ((waiting & ARVALID) && !(p.ready_before & ARREADY) &&
            ((changed & (ARVALID | ARID | 7u << ARSIZE | 3u << ARBURST)) || (high & 0x00FF00FF) ||
             was[IN_ARADDR] != in[IN_ARADDR])) {
            fault(number, "the read address changed before it was taken");
        }
        if ((waiting & AWVALID) && !(p.ready_before & AWREADY) &&
            ((changed & (AWVALID | AWID | 7u << AWSIZE | 3u << AWBURST)) || (high & 0xFF00FF00) ||
             was[IN_AWADDR] != in[IN_AWADDR])) {
            fault(number, "the write address changed before it was taken");
        }
        if ((waiting & WVALID) && !(p.ready_before & WREADY) &&
            ((changed & (WVALID | WLAST)) || was[IN_WSTRB] != in[IN_WSTRB] ||
             memcmp(was + IN_WDATA, in + IN_WDATA, bytes_) != 0)) {
            fault(number, "the write data changed before they were taken");
        }
    }

    // A beat may begin while the bucket is not empty; what it takes too much is paid back first.
    bool granted(int number) {
        if (tokens_ > 0) return true;
        if (denied_ < 0) denied_ = number;
        return false;
    }

    bool stalled(Port& p, Channel channel) {
        if (!s_.stress) return false;
        int& left = p.stall[channel];
        if (left > 0) {
            --left;
            return true;
        }
        const uint32_t r = next_random();
        if (r % 256 == 0) left = r >> 8 & 63;  // a long one now and then
        return r % 4 == 0;
    }

    uint32_t next_random() {
        random_ ^= random_ << 13;
        random_ ^= random_ >> 7;
        random_ ^= random_ << 17;
        return random_ >> 32;
    }

    void fault(int port, const std::string& what) {
        if (!fault_) fprintf(stderr, "AXI protocol: port %d, cycle %lld: %s\n", port,
                             static_cast<long long>(cycle_), what.c_str());
        fault_ = true;
    }

    Settings s_;
    const int bytes_, words_;
    std::vector<Port> ports_;
    uint8_t* memory_ = nullptr;
    uint64_t size_ = 0, random_ = 0;
    double tokens_ = BUCKET;
    int64_t cycle_ = 0;
    int first_ = 0, denied_ = -1;
    bool fault_ = false;
};

}  // namespace
}  // namespace dram

extern "C" void dram_clock(int ports, int bus_bytes, svBit running, const svBitVecVal* in,
                           svBitVecVal* out) {
    static dram::Model model(ports, bus_bytes);
    model.clock(running, in, out);
}
