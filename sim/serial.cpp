// A serial line between two pins of a design and a pseudo-terminal, called once a clock. Its name is
// written to the file that +serial=FILE names; a program that opens it talks to the design.
//
// Bits are timed in fractions of a clock, so that the rate need not divide it.
#include <fcntl.h>
#include <stdlib.h>
#include <termios.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "verilated.h"

namespace {

constexpr int POLL_CLOCKS = 64;  // between two looks for octets, while there are none

void must(bool ok, const char* what) {
    if (ok) return;
    std::perror(what);
    std::abort();
}

class Line {
  public:
    Line(int clock_hz, int baud) : clock_hz_(clock_hz), baud_(baud) {
        master_ = posix_openpt(O_RDWR | O_NOCTTY);
        must(master_ >= 0 && !grantpt(master_) && !unlockpt(master_), "pseudo-terminal");
        const std::string name = ptsname(master_);
        // Kept open: the line stays while no program has it.
        const int slave = open(name.c_str(), O_RDWR | O_NOCTTY);
        termios raw;
        must(slave >= 0 && !tcgetattr(slave, &raw), name.c_str());
        cfmakeraw(&raw);
        must(!tcsetattr(slave, TCSANOW, &raw), name.c_str());
        must(!fcntl(master_, F_SETFL, O_NONBLOCK), name.c_str());
        const std::string option = Verilated::threadContextp()->commandArgsPlusMatch("serial=");
        must(!option.empty(), "+serial=FILE");
        const std::string file = option.substr(option.find('=') + 1);
        // Whole when it appears under its name.
        const std::string partial = file + ".partial";
        FILE* out = std::fopen(partial.c_str(), "w");
        must(out && std::fputs(name.c_str(), out) >= 0 && !std::fclose(out), file.c_str());
        must(!std::rename(partial.c_str(), file.c_str()), file.c_str());
    }

    bool clock(bool tx) {
        hear(tx);
        return speak();
    }

  private:
    // From the design: sampled in the middle of each bit.
    void hear(bool tx) {
        if (heard_ < 0) {
            if (tx || !was_) {
                was_ = tx;
                return;
            }
            heard_ = 0;
            hear_phase_ = clock_hz_ / 2;
        }
        was_ = tx;
        hear_phase_ += baud_;
        if (hear_phase_ < clock_hz_) return;
        hear_phase_ -= clock_hz_;
        octet_ |= uint32_t(tx) << heard_;
        if (++heard_ < 10) return;
        if (tx && !(octet_ & 1)) {
            const uint8_t octet = uint8_t(octet_ >> 1);
            // A program that does not listen loses it, as on a line.
            (void)!write(master_, &octet, 1);
        }
        heard_ = -1;
        octet_ = 0;
    }

    // To the design.
    bool speak() {
        if (left_ == 0 && !fetch()) return true;
        const bool level = bits_ & 1;
        speak_phase_ += baud_;
        if (speak_phase_ >= clock_hz_) {
            speak_phase_ -= clock_hz_;
            bits_ >>= 1;
            left_--;
        }
        return level;
    }

    bool fetch() {
        if (at_ == filled_) {
            if (++idle_ < POLL_CLOCKS) return false;
            idle_ = 0;
            at_ = 0;
            filled_ = read(master_, buffer_, sizeof buffer_);
            if (filled_ <= 0) {
                filled_ = 0;
                return false;
            }
        }
        bits_ = uint32_t(buffer_[at_++]) << 1 | 1u << 9;
        left_ = 10;
        return true;
    }

    const int64_t clock_hz_, baud_;
    int master_ = -1;
    int64_t hear_phase_ = 0, speak_phase_ = 0;
    int heard_ = -1;
    bool was_ = false;
    uint32_t octet_ = 0, bits_ = 0;
    int left_ = 0, idle_ = 0;
    uint8_t buffer_[4096];
    ssize_t at_ = 0, filled_ = 0;
};

}  // namespace

extern "C" void serial_clock(int clock_hz, int baud, unsigned char tx, unsigned char* rx) {
    static Line line(clock_hz, baud);
    *rx = line.clock(tx);
}
