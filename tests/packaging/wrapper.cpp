// wrapper.cpp - runs the scenario that all bindings share (tests/conformance) through costinfer.hpp, and tests what
// only C++ has: moves, exceptions through a callback, cancelling by destruction.
//
//   wrapper MODEL_FOLDER SCENARIO
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <sstream>
#include <thread>

#include <cjson/cJSON.h>
#include <costinfer/costinfer.hpp>

using namespace costinfer;

#define CHECK(what)                                                                                          \
    do {                                                                                                     \
        if (!(what)) {                                                                                       \
            std::cerr << __FILE__ << ":" << __LINE__ << ": " << #what << "\n";                               \
            std::exit(1);                                                                                    \
        }                                                                                                    \
    } while (0)

static const cJSON *at(const cJSON *object, const char *key)
{
    return cJSON_GetObjectItemCaseSensitive(object, key);
}

static std::string text_of(const cJSON *object, const char *key)
{
    CHECK(cJSON_IsString(at(object, key)));
    return at(object, key)->valuestring;
}

static uint32_t number_of(const cJSON *object, const char *key, uint32_t otherwise = 0)
{
    return at(object, key) ? static_cast<uint32_t>(at(object, key)->valuedouble) : otherwise;
}

static float fraction_of(const cJSON *object, const char *key)
{
    return at(object, key) ? static_cast<float>(at(object, key)->valuedouble) : 0;
}

static std::vector<int32_t> ids_of(const cJSON *object)
{
    std::vector<int32_t> ids;
    const cJSON *id = nullptr;
    cJSON_ArrayForEach(id, at(object, "ids")) ids.push_back(id->valueint);
    std::vector<int32_t> all;
    for (uint32_t i = 0; i < number_of(object, "repeat", 1); i++)
        all.insert(all.end(), ids.begin(), ids.end());
    return all;
}

static request request_of(const cJSON *c)
{
    request r(text_of(c, "prompt"));
    r.max_tokens(number_of(c, "max_tokens")).choices(number_of(c, "n", 1));
    r.special(cJSON_IsTrue(at(c, "special")));
    r.temperature(fraction_of(c, "temperature")).typical_p(fraction_of(c, "typical_p"));
    const cJSON *item = nullptr;
    cJSON_ArrayForEach(item, at(c, "stop")) r.stop(item->valuestring);
    cJSON_ArrayForEach(item, at(c, "logit_bias"))
        r.bias(at(item, "token")->valueint, static_cast<float>(at(item, "bias")->valuedouble));
    return r;
}

static void provoke(const cJSON *c, engine &e, const model &m, const std::string &folder)
{
    std::string call = text_of(c, "call");
    if (call == "load")
        e.load(text_of(c, "folder"));
    else if (call == "load again")
        e.load(folder);
    else if (call == "generate")
        m.generate(request(ids_of(c)));
    else if (call == "price")
        e.set_price(text_of(c, "price"));
    else if (call == "find")
        e.find(text_of(c, "name"));
    else if (call == "open")
        engine other(engine_options().device(text_of(c, "device")));
    else if (call == "profile")
        e.profile();
    else
        CHECK(!"a call that is known");
}

static void pause(const cJSON *c, const model &m)
{
    uint32_t max_tokens = number_of(c, "max_tokens");
    request r = request_of(c).ignore_eos();
    std::string text(m.generate(r).text()), seen;
    stream s = m.submit(r);
    seen += s.next()->text;
    s.pause();
    cinf_report before{}, after = s.report();
    for (int i = 0; i < 100 && after.device_ns != before.device_ns; i++) { // the running step still counts
        std::this_thread::sleep_for(std::chrono::milliseconds(30));
        before = std::exchange(after, s.report());
    }
    CHECK(after.finish == CINF_FINISH_RUNNING && after.output_tokens < max_tokens);
    CHECK(after.output_tokens == before.output_tokens && after.device_ns == before.device_ns);
    s.pause(false);
    for (const cinf_event &event : s)
        seen += event.text;
    CHECK(seen == text && s.report().output_tokens == max_tokens);
}

static void charge(const cJSON *c)
{
    std::string price = text_of(c, "dollars_per_hour"), name = text_of(c, "model");
    meter meter(text_of(c, "device"), price);
    std::vector<bill> bills;
    std::vector<cinf_share> shares;
    uint64_t weights = 0, parts = 0;
    const cJSON *share = nullptr;
    cJSON_ArrayForEach(share, at(c, "shares"))
    {
        bills.push_back(meter.open_bill(name));
        cinf_share s{};
        s.bill = bills.back().get();
        s.prefill_weight = number_of(share, "prefill_weight");
        s.decode_weight = number_of(share, "decode_weight");
        s.input_tokens = number_of(share, "input_tokens");
        s.cached_tokens = number_of(share, "cached_tokens");
        s.output_tokens = number_of(share, "output_tokens");
        weights += s.prefill_weight + s.decode_weight;
        shares.push_back(s);
    }
    meter.busy();
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    uint64_t charged = meter.charge(shares);
    meter.idle();
    size_t i = 0;
    cJSON_ArrayForEach(share, at(c, "shares"))
    {
        const cinf_share &s = shares[i];
        std::string finish = text_of(share, "finish");
        cinf_report r = bills[i++].close(finish == "stop" ? CINF_FINISH_STOP : CINF_FINISH_CANCELLED);
        CHECK(r.device_ns - charged * (s.prefill_weight + s.decode_weight) / weights <= 1);
        CHECK((r.prefill_ns > 0) == (s.prefill_weight > 0) && (r.decode_ns > 0) == (s.decode_weight > 0));
        CHECK(r.input_tokens == s.input_tokens && r.cached_tokens == s.cached_tokens);
        CHECK(r.output_tokens == s.output_tokens && cinf_finish_name(r.finish) == finish);
        CHECK(cinf_cost_compare(r.cost, cost_of(r.device_ns, price)) == 0);
        parts += r.device_ns;
    }
    snapshot s = meter.costs();
    CHECK(parts == charged && s->serve_ns == parts && s.begin()->serve_ns == parts &&
          name == s.begin()->name);
    CHECK(s->serve_ns + s->load_ns + s->idle_ns + s->lost_ns + s->overhead_ns == s->as_of_ns && text_of(c, "device") == s->device);
}

static void conform(const std::string &folder, const cJSON *scenario)
{
    std::string price = text_of(scenario, "dollars_per_hour");
    engine e(engine_options().device(text_of(scenario, "device")).dollars_per_hour(price));
    model m = e.load(folder);
    const cJSON *c = nullptr;
    cJSON_ArrayForEach(c, at(scenario, "tokenize"))
    {
        CHECK(m.encode(text_of(c, "text"), cJSON_IsTrue(at(c, "special")) ? CINF_TOKENIZE_SPECIAL : 0) ==
              ids_of(c));
        CHECK(m.decode(ids_of(c)) == text_of(c, "text"));
    }
    uint64_t served = 0;
    cJSON_ArrayForEach(c, at(scenario, "generate"))
    {
        result r = m.generate(request_of(c));
        const cJSON *choice = nullptr;
        uint32_t i = 0;
        cJSON_ArrayForEach(choice, at(c, "choices"))
        {
            CHECK(r.text(i) == text_of(choice, "text"));
            CHECK(std::vector<int32_t>(r[i].ids, r[i].ids + r[i].n_ids) == ids_of(choice));
            CHECK(cinf_finish_name(r[i].finish) == text_of(choice, "finish"));
            i++;
        }
        CHECK(r.end() - r.begin() == i);
        CHECK(r.report().input_tokens == number_of(c, "input_tokens"));
        CHECK(r.report().output_tokens == number_of(c, "output_tokens"));
        CHECK(cinf_cost_compare(r.report().cost, cost_of(r.report().device_ns, price)) == 0);
        served += r.report().device_ns;
    }
    CHECK(e.costs()->serve_ns == served);
    cJSON_ArrayForEach(c, at(scenario, "score"))
    {
        std::vector<float> scores = m.score(ids_of(c));
        double sum = 0;
        for (size_t i = 1; i < scores.size(); i++)
            sum += static_cast<double>(scores[i]);
        CHECK(std::isnan(scores[0]) && std::fabs(sum - at(c, "sum")->valuedouble) < 1e-3);
    }
    cJSON_ArrayForEach(c, at(scenario, "logprobs"))
    {
        stream s = m.submit(request_of(c).logprobs(number_of(c, "top")));
        int i = 0;
        for (const cinf_event &event : s) {
            if (event.kind != CINF_EVENT_TOKEN)
                continue;
            CHECK(event.token == cJSON_GetArrayItem(at(c, "ids"), i)->valueint);
            double logprob = cJSON_GetArrayItem(at(c, "logprobs"), i)->valuedouble;
            CHECK(std::fabs(static_cast<double>(event.logprob) - logprob) < 1e-3);
            const cJSON *top = cJSON_GetArrayItem(at(c, "top_ids"), i++);
            CHECK(event.n_top == static_cast<uint32_t>(cJSON_GetArraySize(top)));
            for (uint32_t k = 0; k < event.n_top; k++)
                CHECK(event.top[k].token == cJSON_GetArrayItem(top, static_cast<int>(k))->valueint);
        }
        CHECK(i == cJSON_GetArraySize(at(c, "ids")));
    }
    cJSON_ArrayForEach(c, at(scenario, "logits"))
    {
        std::vector<float> logits = m.logits(ids_of(c));
        std::ptrdiff_t n_vocab = number_of(c, "vocabulary");
        CHECK(logits.size() == ids_of(c).size() * static_cast<size_t>(n_vocab));
        for (int i = 0; i < cJSON_GetArraySize(at(c, "best")); i++) {
            auto row = logits.begin() + i * n_vocab, best = std::max_element(row, row + n_vocab);
            CHECK(best - row == cJSON_GetArrayItem(at(c, "best"), i)->valueint);
            double logit = cJSON_GetArrayItem(at(c, "best_logits"), i)->valuedouble;
            CHECK(std::fabs(static_cast<double>(*best) - logit) < 1e-3);
        }
    }
    cJSON_ArrayForEach(c, at(scenario, "pause")) pause(c, m);
    cJSON_ArrayForEach(c, at(scenario, "meter")) charge(c);
    meter gpu;
    cJSON_ArrayForEach(c, at(scenario, "gpu_memory"))
    {
        gpu.set_gpu_memory(number_of(c, "used"), number_of(c, "total"));
        gpu.set_gpu_taken(number_of(c, "taken"));
        std::string page = gpu.metrics();
        const cJSON *line = nullptr;
        cJSON_ArrayForEach(line, at(c, "has")) CHECK(page.find(line->valuestring) != std::string::npos);
        CHECK(page.find(text_of(c, "lacks")) == std::string::npos);
    }
    cJSON_ArrayForEach(c, at(scenario, "cost"))
    {
        // Doubles hold the scenario's powers of two and small numbers exactly.
        uint64_t ns = static_cast<uint64_t>(at(c, "ns")->valuedouble);
        CHECK(format(cost_of(ns, text_of(c, "dollars_per_hour"))) == text_of(c, "dollars"));
    }
    cJSON_ArrayForEach(c, at(scenario, "errors"))
    {
        std::string seen = "nothing";
        try {
            provoke(c, e, m, folder);
        } catch (const error &failure) {
            seen = cinf_status_name(failure.status());
        }
        CHECK(seen == text_of(c, "status"));
    }
    snapshot s = e.costs();
    CHECK(s->serve_ns + s->load_ns + s->idle_ns + s->lost_ns + s->overhead_ns == s->as_of_ns);
}

static void own(const std::string &folder)
{
    engine e(engine_options().device("cpu-reference"));
    model m = e.load(folder, "small");
    model moved = std::move(m);
    CHECK(std::string(moved.info().name) == "small" && !m.get());

    std::string streamed;
    {
        stream s = moved.submit(request("Once upon a time").max_tokens(5));
        for (const cinf_event &event : s)
            streamed += event.text;
        CHECK(s.report().output_tokens == 5 && s.next()->kind == CINF_EVENT_END);
    }
    CHECK(streamed == " there was a little girl");

    std::string pieces;
    result r =
        moved.generate(request("Once upon a time").max_tokens(40), [&](uint32_t, std::string_view text) {
            pieces += text;
            return pieces.size() < 10;
        });
    CHECK(r.report().finish == CINF_FINISH_CANCELLED && r.text().substr(0, 10) == pieces.substr(0, 10));

    bool caught = false;
    try {
        moved.generate(request("Once"),
                       [](uint32_t, std::string_view) -> bool { throw std::logic_error("mine"); });
    } catch (const std::logic_error &thrown) {
        caught = std::string(thrown.what()) == "mine";
    }
    CHECK(caught);

    {
        stream left = moved.submit(request("Once").ignore_eos());
        left.next();
    }
    moved.unload();
    snapshot s = e.costs();
    CHECK(s.begin()->finished[CINF_FINISH_CANCELLED] == 3);
    snapshot kept = std::move(s);
    CHECK(kept->n_models == 1);
    CHECK(e.metrics().find("model_request_total{model_name=\"small\"") != std::string::npos);
}

static void profile(const std::string &folder)
{
    engine e(engine_options().device("cpu").profile());
    e.load(folder).generate(request("Once").max_tokens(2));
    std::vector<cinf_profile_row> rows = e.profile();
    CHECK(!rows.empty() && rows[0].launches > 0 && rows[0].name[0]);
    for (size_t i = 1; i < rows.size(); i++)
        CHECK(rows[i].device_ns <= rows[i - 1].device_ns);
}

/* A bill outlives its meter's handle, moves, and is closed as cancelled by its destructor. */
static void own_meter()
{
    std::optional<bill> kept;
    {
        meter m("lathe");
        bill first = m.open_bill("turning");
        kept.emplace(std::move(first));
        m.busy();
        m.charge_load("turning");
        m.idle();
        {
            bill left = m.open_bill("turning");
        }
        CHECK(m.costs().begin()->finished[CINF_FINISH_CANCELLED] == 1);
        CHECK(m.costs()->unpriced_ns > 0);
        CHECK(m.metrics().find("turning") != std::string::npos);
        bool refused = false;
        try {
            m.set_price("1e3");
        } catch (const error &failure) {
            refused = failure.status() == CINF_EINVAL;
        }
        CHECK(refused);
    }
    CHECK(kept->close(CINF_FINISH_LENGTH).finish == CINF_FINISH_LENGTH);
    CHECK(kept->close(CINF_FINISH_STOP).finish == CINF_FINISH_LENGTH);
}

int main(int argc, char *argv[])
{
    if (argc != 3)
        return 2;
    std::ifstream file(argv[2]);
    std::stringstream text;
    text << file.rdbuf();
    cJSON *scenario = cJSON_Parse(text.str().c_str());
    CHECK(scenario);
    conform(argv[1], scenario);
    own(argv[1]);
    own_meter();
    profile(argv[1]);
    cJSON_Delete(scenario);
    std::cout << "C++: the scenario holds\n";
}
