// kumo-bench-server: an S3 that costs next to nothing, so that a benchmark measures its clients.

#include <getopt.h>
#include <sys/prctl.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>
#include <string>

#include "checksum/crc.hpp"
#include "content.hpp"
#include "http.hpp"
#include "s3.hpp"
#include "server.hpp"
#include "transport.hpp"

namespace {

constexpr const char* kUsage =
    "usage: kumo-bench-server [--port N] [--check] [--spin-us N] [--with-parent]\n"
    "                         [--tls-certificate PEM --tls-key PEM]\n"
    "Serves S3 on 127.0.0.1 without storing content: uploads are discarded, the object\n"
    "generated/BYTES/NAME of any bucket has BYTES bytes. Writes one line of JSON with its port.\n"
    "  --check         compare received content with the checksums that come with it\n"
    "  --spin-us N     look for more for so long before sleeping, so that no client pays for\n"
    "                  waking this server (0)\n"
    "  --with-parent   end when the process that started this one ends\n";

struct Options {
  std::uint16_t port = 0;
  std::chrono::microseconds spin{0};
  bool check = false;
  bool with_parent = false;
  const char* certificate = nullptr;
  const char* key = nullptr;
};

[[noreturn]] void usage(int status) {
  std::fputs(kUsage, status == 0 ? stdout : stderr);
  std::exit(status);
}

Options parse(int argc, char** argv) {
  static const option kOptions[] = {{"port", required_argument, nullptr, 'p'},
                                    {"spin-us", required_argument, nullptr, 's'},
                                    {"check", no_argument, nullptr, 'c'},
                                    {"with-parent", no_argument, nullptr, 'w'},
                                    {"tls-certificate", required_argument, nullptr, 't'},
                                    {"tls-key", required_argument, nullptr, 'k'},
                                    {"help", no_argument, nullptr, 'h'},
                                    {}};
  Options options;
  for (int c = 0; (c = getopt_long(argc, argv, "", kOptions, nullptr)) != -1;) {
    switch (c) {
      case 'p': {
        const auto port = kumo::bench::to_number(optarg);
        if (!port || *port > 65535) usage(2);
        options.port = static_cast<std::uint16_t>(*port);
        break;
      }
      case 's': {
        const auto spin = kumo::bench::to_number(optarg);
        if (!spin || *spin > 1'000'000) usage(2);
        options.spin = std::chrono::microseconds(*spin);
        break;
      }
      case 'c':
        options.check = true;
        break;
      case 'w':
        options.with_parent = true;
        break;
      case 't':
        options.certificate = optarg;
        break;
      case 'k':
        options.key = optarg;
        break;
      case 'h':
        usage(0);
      default:
        usage(2);
    }
  }
  const bool half = (options.certificate == nullptr) != (options.key == nullptr);
  if (optind != argc || half) usage(2);
  return options;
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse(argc, argv);
  if (options.with_parent) prctl(PR_SET_PDEATHSIG, SIGTERM);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  sigprocmask(SIG_BLOCK, &set, nullptr);
  std::signal(SIGPIPE, SIG_IGN);  // OpenSSL writes without MSG_NOSIGNAL
  try {
    kumo::checksum::initialise();
    std::unique_ptr<kumo::bench::Tls> tls;
    if (options.certificate != nullptr) {
      tls = std::make_unique<kumo::bench::Tls>(options.certificate, options.key);
    }
    kumo::bench::Content content;
    kumo::bench::S3 s3(content, options.check);
    kumo::bench::Server server(options.port, options.spin, tls.get(), s3, content);
    std::printf("{\"port\": %u, \"tls\": %s}\n", server.port(), tls ? "true" : "false");
    std::fflush(stdout);
    server.run();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "kumo-bench-server: %s\n", error.what());
    return 1;
  }
  return 0;
}
