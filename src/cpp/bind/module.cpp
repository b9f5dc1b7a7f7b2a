#include "bind/bind.hpp"

PYBIND11_MODULE(_core, m) {
  m.doc() = "Native engine of kumo_crt. Private: the public names are in kumo_crt.";
  kumo::bind::register_files(m);
  kumo::bind::register_info(m);
  kumo::bind::register_checksum(m);
  kumo::bind::register_crypto(m);
  kumo::bind::register_runtime(m);
  kumo::bind::register_client(m);
  kumo::bind::register_rocksdb(m);
  kumo::bind::register_event_stream(m);
}
