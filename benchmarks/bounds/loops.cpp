#include "loops.hpp"

#include <fcntl.h>
#include <sys/sendfile.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <stdexcept>
#include <system_error>

#include "checksum/crc32c.hpp"
#include "measure.hpp"
#include "wire.hpp"

namespace kumo::bench {
namespace {

constexpr std::size_t kBlock = 256 << 10;
constexpr std::uint64_t kWarmUp = 32 << 20;

std::size_t checked(ssize_t result, const char* what) {
  if (result < 0) throw std::system_error(errno, std::generic_category(), what);
  return static_cast<std::size_t>(result);
}

class File {
 public:
  File(const std::string& path, int flags)
      : descriptor_(open(path.c_str(), flags | O_CLOEXEC, 0644)) {
    if (descriptor_ < 0) throw std::system_error(errno, std::generic_category(), path);
  }
  ~File() { close(descriptor_); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  [[nodiscard]] int descriptor() const noexcept { return descriptor_; }

 private:
  int descriptor_;
};

// The compiler must not find out that nobody reads a checksum.
volatile std::uint32_t g_checksum;

std::size_t block_of(std::uint64_t left) {
  return static_cast<std::size_t>(std::min<std::uint64_t>(left, kBlock));
}

void upload_file(const Wire& wire, int file, char* buffer, std::uint64_t size, bool checksum) {
  std::uint32_t crc = 0;
  for (std::uint64_t offset = 0; offset < size;) {
    const std::size_t count =
        checked(pread(file, buffer, block_of(size - offset), static_cast<off_t>(offset)), "pread");
    if (count == 0) throw std::runtime_error("the source is shorter than --size");
    if (checksum) crc = checksum::crc32c(buffer, count, crc);
    wire.write_all(buffer, count);
    offset += count;
  }
  g_checksum = crc;
}

std::string run_upload_file(const Settings& settings, bool checksum) {
  const File source(settings.source, O_RDONLY);
  const Memory buffer(kBlock);
  Wire wire(settings.port);
  const auto put = [&](std::uint64_t size) {
    wire.begin_put("bound", size);
    upload_file(wire, source.descriptor(), buffer.data(), size, checksum);
    wire.expect_success();
  };
  put(settings.size);  // also brings the file into the page cache
  return measured([&] { put(settings.size); });
}

std::string run_sendfile(const Settings& settings) {
  const File source(settings.source, O_RDONLY);
  Wire wire(settings.port);
  const auto put = [&] {
    wire.begin_put("bound", settings.size);
    for (off_t offset = 0; static_cast<std::uint64_t>(offset) < settings.size;) {
      const auto left = static_cast<std::size_t>(settings.size) - static_cast<std::size_t>(offset);
      if (checked(sendfile(wire.descriptor(), source.descriptor(), &offset, left), "sendfile") ==
          0) {
        throw std::runtime_error("the source is shorter than --size");
      }
    }
    wire.expect_success();
  };
  put();
  return measured(put);
}

std::string run_upload_memory(const Settings& settings, bool checksum) {
  const Memory body(settings.size);
  Wire wire(settings.port);
  const auto put = [&](std::uint64_t size) {
    wire.begin_put("bound", size);
    std::uint32_t crc = 0;
    for (std::uint64_t offset = 0; offset < size; offset += kBlock) {
      const std::size_t count = block_of(size - offset);
      if (checksum) crc = checksum::crc32c(body.data() + offset, count, crc);
      wire.write_all(body.data() + offset, count);
    }
    wire.expect_success();
    g_checksum = crc;
  };
  put(std::min(settings.size, kWarmUp));
  return measured([&] { put(settings.size); });
}

// Receives an object of this size; `take` is given each block where it landed in `buffer`.
template <class Take>
void download(Wire& wire, std::uint64_t size, char* buffer, const Take& take) {
  const std::string key = "generated/" + std::to_string(size) + "/bound";
  std::size_t have = wire.begin_get(key, buffer, kBlock);
  for (std::uint64_t offset = 0; offset < size; have = 0) {
    const std::size_t wanted = block_of(size - offset);
    // Blocks are filled, so that what follows works on whole pages.
    while (have < wanted) have += wire.receive(buffer + have, wanted - have);
    take(buffer, wanted, offset);
    offset += wanted;
  }
}

std::string run_download_file(const Settings& settings, bool checksum) {
  const Memory buffer(kBlock);
  Wire wire(settings.port);
  const auto get = [&](std::uint64_t size) {
    const File target(settings.target, O_RDWR | O_CREAT | O_TRUNC);
    std::uint32_t crc = 0;
    download(wire, size, buffer.data(),
             [&](const char* data, std::size_t count, std::uint64_t offset) {
               if (checksum) crc = checksum::crc32c(data, count, crc);
               const ssize_t written =
                   pwrite(target.descriptor(), data, count, static_cast<off_t>(offset));
               if (checked(written, "pwrite") != count) throw std::runtime_error("disk full");
             });
    g_checksum = crc;
  };
  get(std::min(settings.size, kWarmUp));
  unlink(settings.target.c_str());
  std::string figures = measured([&] { get(settings.size); });
  unlink(settings.target.c_str());
  return figures;
}

std::string run_download_discard(const Settings& settings) {
  const Memory buffer(kBlock);
  Wire wire(settings.port);
  const auto get = [&](std::uint64_t size) {
    download(wire, size, buffer.data(), [](const char*, std::size_t, std::uint64_t) {});
  };
  get(std::min(settings.size, kWarmUp));
  return measured([&] { get(settings.size); });
}

std::string run_download_memory(const Settings& settings, bool checksum) {
  const Memory target(settings.size);
  Wire wire(settings.port);
  const auto get = [&](std::uint64_t size) {
    const std::string key = "generated/" + std::to_string(size) + "/bound";
    std::uint32_t crc = 0;
    std::uint64_t have = wire.begin_get(key, target.data(), size);
    for (std::uint64_t checked_to = 0; checked_to < size;) {
      if (have < size) {
        have += wire.receive(target.data() + have, block_of(size - have));
      }
      if (checksum) crc = checksum::crc32c(target.data() + checked_to, have - checked_to, crc);
      checked_to = have;
    }
    g_checksum = crc;
  };
  get(std::min(settings.size, kWarmUp));
  return measured([&] { get(settings.size); });
}

std::string run_small_put(const Settings& settings) {
  const Memory body(settings.size);
  Wire wire(settings.port);
  const auto put = [&] {
    wire.begin_put("small", settings.size);
    wire.write_all(body.data(), settings.size);
    wire.expect_success();
  };
  for (int i = 0; i < 100; ++i) put();
  return latencies(settings.count, put);
}

std::string run_small_get(const Settings& settings) {
  const Memory buffer(settings.size + kBlock);
  Wire wire(settings.port);
  const auto get = [&] {
    download(wire, settings.size, buffer.data(), [](const char*, std::size_t, std::uint64_t) {});
  };
  for (int i = 0; i < 100; ++i) get();
  return latencies(settings.count, get);
}

}  // namespace

const std::vector<Loop>& loops() {
  static const std::vector<Loop> kLoops = {
      {"upload-sendfile", "sendfile of a file", run_sendfile},
      {"upload-file", "pread and send",
       [](const Settings& s) { return run_upload_file(s, false); }},
      {"upload-file-crc", "pread, CRC32C and send",
       [](const Settings& s) { return run_upload_file(s, true); }},
      {"upload-memory", "send from memory",
       [](const Settings& s) { return run_upload_memory(s, false); }},
      {"upload-memory-crc", "CRC32C of memory and send",
       [](const Settings& s) { return run_upload_memory(s, true); }},
      {"download-file", "recv and pwrite",
       [](const Settings& s) { return run_download_file(s, false); }},
      {"download-file-crc", "recv, CRC32C and pwrite",
       [](const Settings& s) { return run_download_file(s, true); }},
      {"download-discard", "recv into one buffer", run_download_discard},
      {"download-memory", "recv into memory of the object's size",
       [](const Settings& s) { return run_download_memory(s, false); }},
      {"download-memory-crc", "the same, with CRC32C",
       [](const Settings& s) { return run_download_memory(s, true); }},
      {"small-put", "PUT of small objects, one after the other", run_small_put},
      {"small-get", "GET of small objects, one after the other", run_small_get},
  };
  return kLoops;
}

}  // namespace kumo::bench
