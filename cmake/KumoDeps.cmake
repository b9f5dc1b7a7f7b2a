# Chooses where the AWS Common Runtime libraries come from and finds them.
#
# Sets KUMO_DEPS_SOURCE (bundled or system), KUMO_NATIVE_PREFIX (bundled only), and defines the
# target kumo_native_deps.

if(DEFINED ENV{KUMO_CRT_DEPS})
  set(deps_default "$ENV{KUMO_CRT_DEPS}")
else()
  set(deps_default auto)
endif()
set(KUMO_CRT_DEPS "${deps_default}" CACHE STRING
  "auto: installed libraries if found, else bundled; bundled; system")
set_property(CACHE KUMO_CRT_DEPS PROPERTY STRINGS auto bundled system)
set(KUMO_CRT_AWSCRT_VERSION "$ENV{KUMO_CRT_AWSCRT_VERSION}" CACHE STRING
  "awscrt version to bundle, one of cmake/pins.json; empty: its default")
set(KUMO_CRT_AWSCRT_SDIST "$ENV{KUMO_CRT_AWSCRT_SDIST}" CACHE FILEPATH
  "awscrt source distribution on disk, for offline builds")

# Direct dependencies; the other libraries come with them.
set(KUMO_DIRECT_DEPS aws-c-s3 aws-c-event-stream aws-c-mqtt aws-checksums)

if(NOT KUMO_CRT_DEPS MATCHES "^(auto|bundled|system)$")
  message(FATAL_ERROR "KUMO_CRT_DEPS=${KUMO_CRT_DEPS} is unknown: use auto, bundled or system.")
endif()

# A separate configuration run, because a package that was found cannot be un-found again.
function(kumo_probe_system result)
  try_compile(found
    PROJECT kumo_deps_probe
    SOURCE_DIR "${CMAKE_CURRENT_FUNCTION_LIST_DIR}/probe"
    BINARY_DIR "${CMAKE_CURRENT_BINARY_DIR}/deps-probe"
    NO_CACHE
    CMAKE_FLAGS
      "-DCMAKE_PREFIX_PATH=${CMAKE_PREFIX_PATH}"
      "-DCMAKE_FIND_ROOT_PATH=${CMAKE_FIND_ROOT_PATH}"
      "-DKUMO_DIRECT_DEPS=${KUMO_DIRECT_DEPS}"
    OUTPUT_VARIABLE output)
  set(${result} ${found} PARENT_SCOPE)
endfunction()

function(kumo_build_bundled)
  find_package(Python 3.11 REQUIRED COMPONENTS Interpreter)
  set(result_file "${CMAKE_CURRENT_BINARY_DIR}/native-prefix.txt")
  set(command
    "${Python_EXECUTABLE}" "${CMAKE_CURRENT_FUNCTION_LIST_DIR}/../tools/native_deps.py"
    --cmake "${CMAKE_COMMAND}" --cc "${CMAKE_C_COMPILER}" --cxx "${CMAKE_CXX_COMPILER}"
    --make-program "${CMAKE_MAKE_PROGRAM}" "--cflags=${CMAKE_C_FLAGS}"
    "--sanitize=${KUMO_CRT_SANITIZE}" --result-file "${result_file}")
  if(KUMO_CRT_AWSCRT_VERSION)
    list(APPEND command --version "${KUMO_CRT_AWSCRT_VERSION}")
  endif()
  if(KUMO_CRT_AWSCRT_SDIST)
    list(APPEND command --sdist "${KUMO_CRT_AWSCRT_SDIST}")
  endif()
  execute_process(COMMAND ${command} RESULT_VARIABLE status)
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "The bundled native libraries could not be built: see the error above.")
  endif()
  file(READ "${result_file}" prefix)
  set(KUMO_NATIVE_PREFIX "${prefix}" PARENT_SCOPE)
  # An earlier build of the same tree may have used another prefix.
  get_cmake_property(variables CACHE_VARIABLES)
  foreach(variable IN LISTS variables)
    if(variable MATCHES "^(aws-c-[a-z0-9-]+|aws-checksums|s2n|crypto)_DIR$")
      unset(${variable} CACHE)
    endif()
  endforeach()
endfunction()

set(KUMO_DEPS_SOURCE "${KUMO_CRT_DEPS}")
if(KUMO_CRT_DEPS STREQUAL "auto")
  kumo_probe_system(system_found)
  if(system_found)
    set(KUMO_DEPS_SOURCE system)
  else()
    set(KUMO_DEPS_SOURCE bundled)
  endif()
endif()
message(STATUS "Native libraries: ${KUMO_DEPS_SOURCE} (KUMO_CRT_DEPS=${KUMO_CRT_DEPS})")

set(KUMO_NATIVE_PREFIX "")
if(KUMO_DEPS_SOURCE STREQUAL "bundled")
  kumo_build_bundled()
  list(PREPEND CMAKE_PREFIX_PATH "${KUMO_NATIVE_PREFIX}")
  list(PREPEND CMAKE_FIND_ROOT_PATH "${KUMO_NATIVE_PREFIX}")
endif()

add_library(kumo_native_deps INTERFACE)
foreach(package IN LISTS KUMO_DIRECT_DEPS)
  find_package(${package} CONFIG QUIET)
  if(NOT ${package}_FOUND)
    message(FATAL_ERROR
      "${package} was not found (KUMO_CRT_DEPS=${KUMO_CRT_DEPS}): "
      "${${package}_NOT_FOUND_MESSAGE}\n"
      "Install ${KUMO_DIRECT_DEPS} and what they need, and name their prefix with "
      "CMAKE_PREFIX_PATH or use the kmpkg or vcpkg preset; or set KUMO_CRT_DEPS=bundled to "
      "build them from the awscrt source distribution.")
  endif()
  target_link_libraries(kumo_native_deps INTERFACE AWS::${package})
endforeach()
