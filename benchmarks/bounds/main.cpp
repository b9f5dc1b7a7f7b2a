// kumo-bench-bounds: what a transfer costs at least, against kumo-bench-server.

#include <getopt.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>

#include "checksum/crc.hpp"
#include "loops.hpp"

namespace {

using kumo::bench::Loop;
using kumo::bench::loops;
using kumo::bench::Settings;

[[noreturn]] void usage() {
  std::fputs(
      "usage: kumo-bench-bounds LOOP --port N --size BYTES [--count N] [--source FILE]\n"
      "                         [--target FILE]\n"
      "Measures one loop against kumo-bench-server and writes JSON. Loops:\n",
      stderr);
  for (const Loop& loop : loops()) {
    std::fprintf(stderr, "  %-20s %s\n", loop.name.data(), loop.what.data());
  }
  std::exit(2);
}

}  // namespace

int main(int argc, char** argv) {
  static const option kOptions[] = {
      {"port", required_argument, nullptr, 'p'},   {"size", required_argument, nullptr, 's'},
      {"count", required_argument, nullptr, 'c'},  {"source", required_argument, nullptr, 'f'},
      {"target", required_argument, nullptr, 't'}, {}};
  Settings settings;
  settings.count = 2000;
  for (int c = 0; (c = getopt_long(argc, argv, "", kOptions, nullptr)) != -1;) {
    switch (c) {
      case 'p':
        settings.port = static_cast<std::uint16_t>(std::strtoul(optarg, nullptr, 10));
        break;
      case 's':
        settings.size = std::strtoull(optarg, nullptr, 10);
        break;
      case 'c':
        settings.count = std::strtoull(optarg, nullptr, 10);
        break;
      case 'f':
        settings.source = optarg;
        break;
      case 't':
        settings.target = optarg;
        break;
      default:
        usage();
    }
  }
  if (optind + 1 != argc || settings.port == 0 || settings.size == 0 || settings.count == 0) {
    usage();
  }
  try {
    kumo::checksum::initialise();
    for (const Loop& loop : loops()) {
      if (loop.name == argv[optind]) {
        std::puts(loop.run(settings).c_str());
        return 0;
      }
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "kumo-bench-bounds: %s\n", error.what());
    return 1;
  }
  usage();
}
