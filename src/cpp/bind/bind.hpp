#pragma once

#include <pybind11/pybind11.h>

// The only folder that knows Python. Each register_* adds one concept to the module.
namespace kumo::bind {

void register_checksum(pybind11::module_& m);
void register_client(pybind11::module_& m);
void register_crypto(pybind11::module_& m);
void register_files(pybind11::module_& m);
void register_event_stream(pybind11::module_& m);
void register_info(pybind11::module_& m);
void register_rocksdb(pybind11::module_& m);
void register_runtime(pybind11::module_& m);

}  // namespace kumo::bind
