#include "pins.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <string>
#include <vector>

#include "svdpi.h"

// A DRAM behind AXI4 ports: bandwidth, latency, stalls and errors, over a memory-mapped file.
namespace dram {
namespace {

using namespace pins;

[[noreturn]] void die(const std::string& what) {
    fprintf(stderr, "DRAM: %s\n", what.c_str());
    exit(3);
}

enum Channel { AR, R, AW, W, B, CHANNELS };

// Parameters come as name=value, separated by semicolons, in TERNTABLE_DRAM (sim/dram.py).
// They are read again at every reset.
struct Settings {
    uint64_t base = 0;
    double bytes_per_cycle = 56;
    int latency = 38;          // cycles from the address to the first beat
    int write_latency = 38;    // cycles from the last beat to the answer
    std::vector<int> port_latency;  // cycles on top, by port
    int jitter = 0;            // most cycles that are added at random
    int min_burst = 64;        // bytes that a burst is charged at least
    int outstanding = 16;      // bursts in flight, a port and direction
    uint64_t seed = 0;
    double stalls[CHANNELS] = {};  // how likely a channel stands still in a cycle
    double pause = 0;          // how likely it goes on for up to `longest` cycles then
    int longest = 0;
    bool shy = false;          // ready only after valid was seen
    struct Range {
        uint64_t first, end;
        bool reads, writes;
        int times;  // to go; all below zero
    };
    std::vector<Range> errors;  // offsets that answer SLVERR
    std::vector<Range> lost;    // offsets that never answer

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
        else if (name == "write_latency") write_latency = atoi(value);
        else if (name == "port_latency") port_latency.push_back(atoi(value));
        else if (name == "jitter") jitter = atoi(value);
        else if (name == "min_burst") min_burst = atoi(value);
        else if (name == "outstanding") outstanding = atoi(value);
        else if (name == "seed") seed = strtoull(value, nullptr, 0);
        else if (name == "stalls") {
            for (double& p : stalls) {
                char* rest;
                p = strtod(value, &rest);
                value = *rest ? rest + 1 : rest;
            }
        }
        else if (name == "pause") pause = strtod(value, nullptr);
        else if (name == "longest") longest = atoi(value);
        else if (name == "shy") shy = atoi(value) != 0;
        else if (name == "error") errors.push_back(range(value));
        else if (name == "lost") lost.push_back(range(value));
        else if (name == "control") {}  // of the control port, see server.py
        else die("unknown setting " + name);
    }

    // first,size,kind,times: the kind is r, w or rw.
    static Range range(const char* value) {
        char* rest;
        const uint64_t first = strtoull(value, &rest, 0);
        const uint64_t size = strtoull(*rest ? rest + 1 : rest, &rest, 0);
        const char* times = strrchr(rest, ',');
        return {first, first + size, strchr(rest, 'r') != nullptr, strchr(rest, 'w') != nullptr,
                times ? atoi(times + 1) : -1};
    }
};

constexpr int64_t NEVER = INT64_MAX;

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
    std::deque<std::vector<uint32_t>> data;  // strobes, then the words of a write beat
    std::vector<uint32_t> shown;             // read data
    uint32_t flags = 0;                      // output flags that this clock's inputs answer
    int stall[CHANNELS] = {};                // cycles to go
};

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
        reset();
    }

    int in_words() const { return IN_WDATA + words_; }
    int out_words() const { return OUT_RDATA + words_; }

    void clock(bool running, const uint32_t* in, uint32_t* out) {
        ++cycle_;
        tokens_ += s_.bytes_per_cycle;
        if (tokens_ > BUCKET) tokens_ = BUCKET;
        const int n = ports_.size();
        if (!running) {
            if (running_) reset();
            running_ = false;
            memset(out, 0, size_t(n) * out_words() * 4);
            return;
        }
        running_ = true;
        // Ports share the tokens evenly: the first that found none is the first next time.
        denied_ = -1;
        for (int k = 0, p = first_; k < n; ++k) {
            step(p, in + p * in_words(), out + p * out_words());
            if (++p == n) p = 0;
        }
        if (denied_ >= 0) first_ = denied_;
    }

  private:
    static constexpr double BUCKET = 256;  // bytes that idle cycles save up
    static constexpr size_t WRITE_BEATS = 32;

    void reset() {
        s_ = Settings();
        random_ = s_.seed * 0x9E3779B97F4A7C15ull + 0x1234567ull;
        tokens_ = BUCKET;
        first_ = 0;
        for (Port& p : ports_) {
            p = Port();
            p.shown.assign(words_, 0);
        }
    }

    void step(int number, const uint32_t* in, uint32_t* out) {
        Port& p = ports_[number];
        const uint32_t flags = in[IN_FLAGS];
        // What the edge transferred.
        if ((p.flags & ARREADY) && (flags & ARVALID)) {
            p.reads.push_back(burst(number, false, read_address(in), read_beats(in),
                                    flags >> ARSIZE & 7, flags >> ARBURST & 3,
                                    (flags & ARID) != 0));
        }
        if ((p.flags & AWREADY) && (flags & AWVALID)) {
            p.writes.push_back(burst(number, true, write_address(in), write_beats(in),
                                     flags >> AWSIZE & 7, flags >> AWBURST & 3,
                                     (flags & AWID) != 0));
        }
        if ((p.flags & WREADY) && (flags & WVALID)) {
            std::vector<uint32_t> beat(1 + words_);
            beat[0] = in[IN_WSTRB];
            memcpy(&beat[1], in + IN_WDATA, bytes_);
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
        if (p.reads.size() < most && willing(p, AR, flags & ARVALID, p.flags & ARREADY)) {
            next |= ARREADY;
        }
        if (p.writes.size() + p.answers.size() < most &&
            willing(p, AW, flags & AWVALID, p.flags & AWREADY)) {
            next |= AWREADY;
        }
        if (p.data.size() < WRITE_BEATS && willing(p, W, flags & WVALID, p.flags & WREADY)) {
            next |= WREADY;
        }
        p.flags = out[OUT_FLAGS] = next;
        memcpy(out + OUT_RDATA, p.shown.data(), bytes_);
    }

    // Whether a channel is ready in the next cycle; `valid` and `ready` are those of this one.
    bool willing(Port& p, Channel channel, bool valid, bool ready) {
        if (stalled(p, channel)) return false;
        return !s_.shy || (valid && !ready);
    }

    Burst burst(int port, bool write, uint64_t address, int beats, int size, int type, int id) {
        const uint64_t length = uint64_t(beats) * bytes_;
        if (1 << size != bytes_ || type != 1 || address % bytes_) {
            die("port " + std::to_string(port) + ": only incrementing bursts of whole bus words are"
                " served");
        }
        Burst b{address - s_.base, beats, 0, uint32_t(id), OKAY, after(port, s_.latency)};
        if (address < s_.base || b.offset + length > size_) {
            b.resp = DECERR;
        } else {
            if (within(s_.errors, b.offset, length, write)) b.resp = SLVERR;
            if (within(s_.lost, b.offset, length, write)) b.when = NEVER;
        }
        return b;
    }

    static bool within(std::vector<Settings::Range>& ranges, uint64_t offset, uint64_t length,
                       bool write) {
        for (auto& r : ranges) {
            if (offset < r.end && offset + length > r.first && (write ? r.writes : r.reads) &&
                r.times != 0) {
                if (r.times > 0) --r.times;
                return true;
            }
        }
        return false;
    }

    // The cycle in which something that takes `latency` is there, on this port.
    int64_t after(int port, int latency) {
        int64_t when = cycle_ + latency - 1;
        if (size_t(port) < s_.port_latency.size()) when += s_.port_latency[port];
        if (s_.jitter) when += next_random() % (s_.jitter + 1);
        return when;
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
            const auto* from = reinterpret_cast<const uint8_t*>(&beat[1]);
            for (int i = 0; i < bytes_; ++i) {
                if (beat[0] >> i & 1) to[i] = from[i];
            }
        }
        if (++b.beat == b.beats) {
            const int64_t when = b.when == NEVER ? NEVER : after(number, s_.write_latency);
            p.answers.push_back({b.id, b.resp, when});
            p.writes.pop_front();
        }
    }

    void charge(const Burst& b) {
        tokens_ -= bytes_;
        if (b.beat == 0 && b.beats * bytes_ < s_.min_burst) tokens_ -= s_.min_burst - b.beats * bytes_;
    }

    // A beat may begin while the bucket is not empty; what it takes too much is paid back first.
    bool granted(int number) {
        if (tokens_ > 0) return true;
        if (denied_ < 0) denied_ = number;
        return false;
    }

    bool stalled(Port& p, Channel channel) {
        if (s_.stalls[channel] <= 0) return false;
        int& left = p.stall[channel];
        if (left > 0) {
            --left;
            return true;
        }
        if (chance() < s_.pause) left = next_random() % (s_.longest + 1);
        return chance() < s_.stalls[channel];
    }

    double chance() { return next_random() / 4294967296.0; }

    uint32_t next_random() {
        random_ ^= random_ << 13;
        random_ ^= random_ >> 7;
        random_ ^= random_ << 17;
        return random_ >> 32;
    }

    Settings s_;
    const int bytes_, words_;
    std::vector<Port> ports_;
    uint8_t* memory_ = nullptr;
    uint64_t size_ = 0, random_ = 0;
    double tokens_ = BUCKET;
    int64_t cycle_ = 0;
    int first_ = 0, denied_ = -1;
    bool running_ = true;
};

}  // namespace
}  // namespace dram

extern "C" void dram_clock(int ports, int bus_bytes, svBit running, const svBitVecVal* in,
                           svBitVecVal* out) {
    static dram::Model model(ports, bus_bytes);
    model.clock(running, in, out);
}
