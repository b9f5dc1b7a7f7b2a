#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "transport.hpp"

namespace kumo::bench {
namespace {

constexpr std::uint64_t kDiscardAtOnce = 4 << 20;

Moved moved(ssize_t result) noexcept {
  if (result > 0) return {Io::kOk, static_cast<std::size_t>(result)};
  if (result < 0 && (errno == EAGAIN || errno == EINTR)) return {Io::kBlocked, 0};
  return {Io::kClosed, 0};
}

class PlainTransport final : public Transport {
 public:
  explicit PlainTransport(int descriptor) : descriptor_(descriptor) {}
  ~PlainTransport() override { close(descriptor_); }
  PlainTransport(const PlainTransport&) = delete;
  PlainTransport& operator=(const PlainTransport&) = delete;

  Io handshake() override { return Io::kOk; }

  Moved read(char* to, std::size_t capacity) override {
    writing_ = false;
    return moved(recv(descriptor_, to, capacity, 0));
  }

  Moved discard(std::uint64_t at_most) override {
    writing_ = false;
    // MSG_TRUNC on a TCP socket drops the bytes in the kernel: nothing is copied.
    const auto count = static_cast<std::size_t>(std::min(at_most, kDiscardAtOnce));
    return moved(recv(descriptor_, nullptr, count, MSG_TRUNC));
  }

  Moved write(std::string_view data, bool more) override {
    writing_ = true;
    return moved(send(descriptor_, data.data(), data.size(), MSG_NOSIGNAL | (more ? MSG_MORE : 0)));
  }

  Moved write_content(const Content& content, std::uint64_t offset, std::uint64_t count) override {
    writing_ = true;
    auto start = static_cast<off_t>(offset % Content::kPeriod);
    const auto piece = std::min<std::uint64_t>(count, content.at(offset).size());
    return moved(sendfile(descriptor_, content.descriptor(), &start, piece));
  }

  Io flush() override { return Io::kOk; }

  [[nodiscard]] bool wants_write() const override { return writing_; }

 private:
  int descriptor_;
  bool writing_ = false;
};

}  // namespace

std::unique_ptr<Transport> make_plain_transport(int descriptor) {
  return std::make_unique<PlainTransport>(descriptor);
}

}  // namespace kumo::bench
