# Tests of the whole programs, which Python scripts run with the standard library only.
#
#   cinf_program_test(NAME script.py [SLOW] [ARGUMENTS WORD ...])
#
# A script exits with 0 (passed), 77 (skipped, with a line that says why) or another status (failed).

find_package(Python3 COMPONENTS Interpreter)

function(cinf_program_test name script)
  # Debian's own python3 has the modules that scripts/setup.sh installs; the first one on PATH may not.
  if(EXISTS /usr/bin/python3)
    set(python /usr/bin/python3)
  else()
    set(python ${Python3_EXECUTABLE})
  endif()
  cmake_parse_arguments(PARSE_ARGV 2 test "SLOW" "" "ARGUMENTS")
  add_test(NAME ${name} COMMAND ${python} ${CMAKE_CURRENT_SOURCE_DIR}/${script} ${test_ARGUMENTS})
  set_tests_properties(${name} PROPERTIES ENVIRONMENT "${test_environment}" TIMEOUT 600
                       SKIP_RETURN_CODE 77)
  if(test_SLOW)
    set_tests_properties(${name} PROPERTIES LABELS slow)
  endif()
endfunction()

if(CINF_APPS)
  cinf_program_test(cli_commands cli_commands.py)
  cinf_program_test(cli_malformed cli_malformed.py)
  cinf_program_test(cli_demo cli_demo.py)
  cinf_program_test(cli_readme cli_readme.py)
  cinf_program_test(bench_scripts bench_scripts.py)
endif()

add_executable(exposition_demo programs/exposition_demo.c)
target_link_libraries(exposition_demo PRIVATE cinf_tree)
cinf_program_test(exposition_check exposition_check.py)

cinf_program_test(costd_routes costd/test_costd_routes.py)
cinf_program_test(costd_requests costd/test_costd_requests.py)
cinf_program_test(costd_accounting costd/test_costd_accounting.py)
if(CINF_HAVE_OPENCL)
  cinf_program_test(costd_accounting_opencl costd/test_costd_accounting.py)
  set_tests_properties(costd_accounting_opencl PROPERTIES ENVIRONMENT "${on_opencl};COSTD_TEST_DEVICE=opencl")
endif()
if(CINF_LEDGER)
  cinf_program_test(costd_ledger costd/test_costd_ledger.py)
endif()
cinf_program_test(costd_lifecycle costd/test_costd_lifecycle.py)
cinf_program_test(costd_reload costd/test_costd_reload.py)
cinf_program_test(costd_books costd/test_costd_books.py)
cinf_program_test(costd_metrics costd/test_costd_metrics.py)
cinf_program_test(costd_admission costd/test_costd_admission.py)
cinf_program_test(costd_log costd/test_costd_log.py)
cinf_program_test(costd_admin costd/test_costd_admin.py)
cinf_program_test(costd_openapi costd/test_costd_openapi.py)
cinf_program_test(costd_document costd/test_costd_document.py)
if(CINF_APPS)
  cinf_program_test(request_options check_options.py)
endif()
cinf_program_test(costd_deadlines costd/test_costd_deadlines.py)
cinf_program_test(costd_descriptors costd/test_costd_descriptors.py)
cinf_program_test(costd_canary costd/test_costd_canary.py)
cinf_program_test(costd_hostile_names costd/test_costd_hostile_names.py)
cinf_program_test(costd_no_memory costd/test_costd_no_memory.py)
cinf_program_test(costd_stalled_readers costd/test_costd_stalled_readers.py)
cinf_program_test(costd_memory costd/test_costd_memory.py)
cinf_program_test(costd_storm costd/test_costd_storm.py ARGUMENTS --seconds 10)
cinf_program_test(costd_storm_slow costd/test_costd_storm.py SLOW)
set_tests_properties(costd_storm_slow PROPERTIES TIMEOUT 1500)
cinf_program_test(costd_queue costd/test_costd_queue.py)
cinf_program_test(costd_ids costd/test_costd_ids.py)
cinf_program_test(costd_prometheus costd/test_costd_prometheus.py)
cinf_program_test(costd_page costd/test_costd_page.py)
cinf_program_test(page_in_browser page/test_page.py SLOW)

# dashboards/: the files, the mistakes that their tests must find, and everything with a real Prometheus.
cinf_program_test(monitoring_files monitoring/test_monitoring_files.py)
cinf_program_test(monitoring_mutations monitoring/test_monitoring_mutations.py)
cinf_program_test(monitoring_live monitoring/test_monitoring_live.py SLOW)
if(CINF_HAVE_OPENCL)
  cinf_program_test(monitoring_live_opencl monitoring/test_monitoring_live.py SLOW)
  set_tests_properties(monitoring_live_opencl PROPERTIES ENVIRONMENT "${on_opencl};COSTD_TEST_DEVICE=opencl")
endif()
cinf_program_test(monitoring_demo monitoring/test_monitoring_demo.py SLOW)
cinf_program_test(monitoring_types monitoring/test_monitoring_types.py SLOW)

cinf_program_test(costd_disconnect costd/test_costd_disconnect.py)
if(CINF_APPS)
  cinf_program_test(costd_scoring costd/test_costd_scoring.py)
endif()
cinf_program_test(costd_http costd/test_costd_http.py)
cinf_program_test(costd_vectors costd/test_costd_vectors.py)
cinf_program_test(costd_disconnect_slow costd/test_costd_disconnect.py SLOW ARGUMENTS --slow)
cinf_program_test(nginx_vectors costd/test_costd_vectors.py SLOW ARGUMENTS --nginx)
cinf_program_test(proxies costd/test_costd_proxies.py SLOW)

cinf_program_test(floors check_floors.py)
cinf_program_test(scripts_keep_files check_scripts.py)

# What programs that are already built rely on.
cinf_program_test(abi_symbols abi/check_symbols.py)
cinf_program_test(abi_layout abi/check_layout.py)
cinf_program_test(abi_headers abi/check_headers.py)
cinf_program_test(abi_reference abi/check_reference.py)
add_executable(other_callers abi/other_callers.c)
target_link_libraries(other_callers PRIVATE costinfer)
target_compile_definitions(other_callers PRIVATE _DEFAULT_SOURCE)
add_test(NAME abi_other_callers COMMAND other_callers ${PROJECT_SOURCE_DIR}/examples/models/stories-small)
set_tests_properties(abi_other_callers PROPERTIES ENVIRONMENT "${test_environment}" TIMEOUT 300)

# The installed package as its users see it, with a slow test for each way of using it.
if(TARGET costinfer_static)
  foreach(part install c_programs examples python go debian docs reproducible)
    if(EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/packaging/check_${part}.py)
      cinf_program_test(packaging_${part} packaging/check_${part}.py SLOW)
      set_tests_properties(packaging_${part} PROPERTIES RESOURCE_LOCK install) # each writes the build's manifest
    endif()
  endforeach()
endif()

# A Debug build has no optimisation that FORTIFY needs, and keeps the paths of its sources.
if(CINF_HARDENED AND NOT CMAKE_BUILD_TYPE STREQUAL "Debug")
  cinf_program_test(hardening packaging/check_hardening.py)
endif()

# This test installs a Python environment from PyPI in the build folder if it is missing.
cinf_program_test(transformers_agreement peers/transformers_agreement.py SLOW)
set_tests_properties(transformers_agreement PROPERTIES TIMEOUT 1200)
cinf_program_test(added_tokens_agreement peers/added_tokens_agreement.py SLOW)
cinf_program_test(tokenizers_agreement peers/tokenizers_agreement.py SLOW)

# These tests install OpenAI's clients from PyPI and npm in the build folder if they are missing.
cinf_program_test(openai_python peers/openai_python.py SLOW)
cinf_program_test(openai_node peers/openai_node.py SLOW)

# Other people's clients, each with a Python environment from PyPI in the build folder: make test-clients.
function(cinf_client_test client script)
  cinf_program_test(client_${client} clients/${script} SLOW)
  set_tests_properties(client_${client} PROPERTIES LABELS "slow;clients" TIMEOUT 1200)
endfunction()
cinf_client_test(litellm litellm_client.py)
cinf_client_test(lm_eval lm_eval_client.py)
cinf_client_test(langchain langchain_openai_client.py)
cinf_client_test(llama_index llama_index_client.py)
cinf_client_test(llm llm_client.py)
cinf_client_test(locust locust_client.py)
cinf_client_test(guidellm guidellm_client.py)
set_tests_properties(openai_python PROPERTIES LABELS "slow;clients")

# This test installs a linter from npm in the same way.
cinf_program_test(openapi_lint peers/openapi_lint.py SLOW)
