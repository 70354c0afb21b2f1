/* costinfer.hpp - libcostinfer for C++17: handles that release themselves, failures as exceptions.
 *
 *     #include <costinfer/costinfer.hpp>
 *     #include <iostream>
 *
 *     int main()
 *     {
 *         costinfer::engine engine(costinfer::engine_options().dollars_per_hour("0.10"));
 *         costinfer::model model = engine.load("examples/models/stories-small");
 *         costinfer::result result = model.generate(costinfer::request("Once upon a time").max_tokens(40));
 *         std::cout << result.text() << "\n$" << costinfer::format(result.report().cost) << "\n";
 *     }
 *
 * Everything is inline over the C headers, whose contracts hold.  A handle can be moved and not copied;
 * `get()` returns the C handle, for functions that are not wrapped.  Options structs are the C ones with
 * setters that copy strings.
 */
#ifndef COSTINFER_COSTINFER_HPP
#define COSTINFER_COSTINFER_HPP

#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <costinfer/costinfer.h>

namespace costinfer
{

/* A failed call: its status, and its one line of explanation as what(). */
class error : public std::runtime_error
{
  public:
    explicit error(cinf_status status) : std::runtime_error(cinf_last_error()), status_(status)
    {
    }
    error(cinf_status status, const char *message) : std::runtime_error(message), status_(status)
    {
    }
    cinf_status status() const noexcept
    {
        return status_;
    }

  private:
    cinf_status status_;
};

/* Throws what a C function returned, unless it succeeded. */
inline void check(cinf_status status)
{
    if (status != CINF_OK)
        throw error(status);
}

namespace detail
{
struct closer {
    void operator()(cinf_engine *p) const noexcept
    {
        cinf_engine_close(p);
    }
    void operator()(cinf_model *p) const noexcept
    {
        cinf_model_release(p);
    }
    void operator()(cinf_request *p) const noexcept
    {
        cinf_request_free(p);
    }
    void operator()(cinf_result *p) const noexcept
    {
        cinf_result_free(p);
    }
    void operator()(cinf_exposition *p) const noexcept
    {
        cinf_exposition_free(p);
    }
};
template <typename T> using handle = std::unique_ptr<T, closer>;

/* A zeroed C struct that knows its size. */
template <typename T> T sized()
{
    T s{};
    s.struct_size = sizeof s;
    return s;
}
} // namespace detail

/* ---- Money ------------------------------------------------------------------------------------ */

/* Dollars with 12 decimals. */
inline std::string format(cinf_cost cost)
{
    char text[CINF_COST_TEXT_MAX];
    return cinf_cost_format(text, cost);
}

/* What a time costs at a price: the product, which is never rounded. */
inline cinf_cost cost_of(uint64_t ns, const std::string &dollars_per_hour)
{
    uint64_t price = 0;
    check(cinf_price_parse(&price, dollars_per_hour.c_str()));
    return cinf_cost_of(ns, price);
}

/* One consistent snapshot of a meter. */
class snapshot
{
  public:
    explicit snapshot(const cinf_meter *meter) : s_(detail::sized<cinf_snapshot>())
    {
        check(cinf_meter_snapshot(&s_, meter));
    }
    snapshot(snapshot &&other) noexcept : s_(std::exchange(other.s_, cinf_snapshot{}))
    {
    }
    snapshot &operator=(snapshot &&other) noexcept
    {
        std::swap(s_, other.s_);
        return *this;
    }
    ~snapshot()
    {
        cinf_snapshot_free(&s_);
    }

    const cinf_snapshot &operator*() const noexcept
    {
        return s_;
    }
    const cinf_snapshot *operator->() const noexcept
    {
        return &s_;
    }
    const cinf_model_totals *begin() const noexcept
    {
        return s_.models;
    }
    const cinf_model_totals *end() const noexcept
    {
        return s_.models + s_.n_models;
    }

  private:
    cinf_snapshot s_;
};

/* All metrics of a meter for Prometheus; cinf_exposition_negotiate() is the format that an Accept header asks
 * for. */
inline std::string metrics(const cinf_meter *meter, cinf_exposition_format format = CINF_EXPOSITION_TEXT)
{
    cinf_exposition *raw = nullptr;
    check(cinf_exposition_new(&raw, format));
    detail::handle<cinf_exposition> page(raw);
    const char *text = nullptr;
    size_t length = 0;
    check(cinf_exposition_meter(page.get(), meter));
    check(cinf_exposition_finish(page.get(), &text, &length));
    return std::string(text, length);
}

/* ---- A meter for other inference engines ------------------------------------------------------ */

/* One request that a meter charges.  It keeps its meter alive.  The destructor closes an open bill as
 * cancelled, so it must run on the thread that advances time. */
class bill
{
  public:
    bill(std::shared_ptr<cinf_meter> meter, cinf_bill *raw) : meter_(std::move(meter)), raw_(raw)
    {
    }
    bill(bill &&other) noexcept
        : meter_(std::move(other.meter_)), raw_(std::exchange(other.raw_, nullptr)), open_(other.open_)
    {
    }
    bill &operator=(bill &&other) noexcept
    {
        std::swap(meter_, other.meter_);
        std::swap(raw_, other.raw_);
        std::swap(open_, other.open_);
        return *this;
    }
    ~bill()
    {
        if (raw_ && open_)
            cinf_bill_close(raw_, CINF_FINISH_CANCELLED);
        cinf_bill_free(raw_);
    }
    cinf_report report() const
    {
        cinf_report r = detail::sized<cinf_report>();
        cinf_bill_read(raw_, &r);
        return r;
    }
    cinf_report close(cinf_finish finish = CINF_FINISH_STOP)
    {
        if (open_)
            cinf_bill_close(raw_, finish);
        open_ = false;
        return report();
    }
    cinf_bill *get() const noexcept
    {
        return raw_;
    }

  private:
    std::shared_ptr<cinf_meter> meter_;
    cinf_bill *raw_;
    bool open_ = true;
};

/* A timeline of one device, for a program that runs models by itself.  Only one thread at a time may advance
 * time by busy(), idle(), charge(), charge_load(), set_price(), account(), open_bill() and closing a bill. */
class meter
{
  public:
    explicit meter(const std::string &device = "cpu", const std::optional<std::string> &dollars_per_hour = {})
    {
        cinf_meter_options o = detail::sized<cinf_meter_options>();
        o.device = device.c_str();
        o.dollars_per_hour = dollars_per_hour ? dollars_per_hour->c_str() : nullptr;
        cinf_meter *raw = nullptr;
        check(cinf_meter_new(&raw, &o));
        raw_.reset(raw, cinf_meter_free);
    }
    /* The number of a model's account, which is created for a new name. */
    uint32_t account(const std::string &model)
    {
        uint32_t number = 0;
        check(cinf_meter_add_model(raw_.get(), model.c_str(), &number));
        return number;
    }
    /* The bill of a request; `payer` is a name known before it. */
    bill open_bill(const std::string &model, const std::string &payer = "anonymous")
    {
        cinf_bill *raw = nullptr;
        check(cinf_bill_open_for(&raw, raw_.get(), account(model), 0, payer.c_str()));
        return bill(raw_, raw);
    }
    void busy() noexcept
    {
        cinf_meter_busy(raw_.get());
    }
    void idle() noexcept
    {
        cinf_meter_idle(raw_.get());
    }
    /* Charges the time since the last boundary to the shares, and returns it in nanoseconds. */
    uint64_t charge(const std::vector<cinf_share> &shares) noexcept
    {
        return cinf_meter_charge(raw_.get(), shares.data(), static_cast<uint32_t>(shares.size()));
    }
    uint64_t charge_load(const std::string &model)
    {
        return cinf_meter_charge_load(raw_.get(), account(model));
    }
    void set_price(const std::string &dollars_per_hour)
    {
        check(cinf_meter_set_price(raw_.get(), dollars_per_hour.c_str()));
    }
    /* A GPU's memory as allocated by this program, and in all, for metrics(). */
    void set_gpu_memory(uint64_t used_bytes, uint64_t total_bytes) noexcept
    {
        cinf_meter_set_gpu_memory(raw_.get(), used_bytes, total_bytes);
    }
    /* The GPU's used memory as its driver counts it, other programs' included; 0: unknown. */
    void set_gpu_taken(uint64_t used_bytes) noexcept
    {
        cinf_meter_set_gpu_taken(raw_.get(), used_bytes);
    }
    snapshot costs() const
    {
        return snapshot(raw_.get());
    }
    std::string metrics(cinf_exposition_format format = CINF_EXPOSITION_TEXT) const
    {
        return costinfer::metrics(raw_.get(), format);
    }
    cinf_meter *get() const noexcept
    {
        return raw_.get();
    }

  private:
    std::shared_ptr<cinf_meter> raw_;
};

/* ---- Requests --------------------------------------------------------------------------------- */

/* The options of a request.  Setters chain; strings and lists are copied into it. */
class request
{
  public:
    request() : options_(detail::sized<cinf_request_options>())
    {
    }
    explicit request(std::string prompt) : request()
    {
        prompt_ = std::move(prompt);
    }
    explicit request(std::vector<int32_t> ids) : request()
    {
        ids_ = std::move(ids);
    }

    /* "<|endoftext|>" and other special tokens in the prompt are tokens; not for untrusted text. */
    request &special(bool on = true)
    {
        return options_.tokenize_flags = on ? CINF_TOKENIZE_SPECIAL : 0, *this;
    }
    request &max_tokens(uint32_t n)
    {
        return options_.max_tokens = n, *this;
    }
    request &stop(std::string text)
    {
        return stops_.push_back(std::move(text)), *this;
    }
    request &choices(uint32_t n)
    {
        return options_.n = n, *this;
    }
    request &temperature(float t)
    {
        return options_.temperature = t, *this;
    }
    request &top_k(uint32_t k)
    {
        return options_.top_k = k, *this;
    }
    request &top_p(float p)
    {
        return options_.top_p = p, *this;
    }
    request &min_p(float p)
    {
        return options_.min_p = p, *this;
    }
    request &typical_p(float p)
    {
        return options_.typical_p = p, *this;
    }
    request &repetition_penalty(float x)
    {
        return options_.repetition_penalty = x, *this;
    }
    request &presence_penalty(float x)
    {
        return options_.presence_penalty = x, *this;
    }
    request &frequency_penalty(float x)
    {
        return options_.frequency_penalty = x, *this;
    }
    request &seed(uint64_t s)
    {
        return options_.seed = s, *this;
    }
    request &bias(int32_t token, float bias)
    {
        return biases_.push_back({ token, bias }), *this;
    }
    request &logprobs(uint32_t top = 0)
    {
        return options_.logprobs = true, options_.top_logprobs = top, *this;
    }
    request &ignore_eos(bool ignore = true)
    {
        return options_.ignore_eos = ignore, *this;
    }
    request &min_tokens(uint32_t n)
    {
        return options_.min_tokens = n, *this;
    }
    request &stop_token(int32_t id)
    {
        return stop_ids_.push_back(id), *this;
    }
    request &payer(std::string name)
    {
        return payer_ = std::move(name), *this;
    }
    request &timeout_ns(uint64_t ns)
    {
        return options_.timeout_ns = ns, *this;
    }
    request &unread_max(uint32_t n)
    {
        return options_.unread_max = n, *this;
    }
    /* For the fields without a setter; prompt, stops, logit_bias and payer are filled in later. */
    cinf_request_options &raw() noexcept
    {
        return options_;
    }

    /* Calls use(options) with the C options, which are valid during the call. */
    template <typename F> auto with_options(F use) const
    {
        cinf_request_options o = options_;
        std::vector<const char *> stops;
        for (const std::string &s : stops_)
            stops.push_back(s.c_str());
        if (!stops.empty())
            o.stop = stops.data(), o.n_stop = static_cast<uint32_t>(stops.size());
        if (!biases_.empty())
            o.logit_bias = biases_.data(), o.n_logit_bias = static_cast<uint32_t>(biases_.size());
        if (!stop_ids_.empty())
            o.stop_token_ids = stop_ids_.data(), o.n_stop_token_ids = static_cast<uint32_t>(stop_ids_.size());
        if (!payer_.empty())
            o.payer = payer_.c_str();
        if (!ids_.empty())
            o.prompt_ids = ids_.data(), o.n_prompt_ids = static_cast<uint32_t>(ids_.size());
        else
            o.prompt = prompt_.c_str(), o.prompt_bytes = prompt_.size();
        return use(o);
    }

  private:
    cinf_request_options options_;
    std::string prompt_;
    std::vector<int32_t> ids_;
    std::vector<std::string> stops_;
    std::vector<cinf_logit_bias> biases_;
    std::vector<int32_t> stop_ids_;
    std::string payer_;
};

/* A finished generation. */
class result
{
  public:
    explicit result(cinf_result *raw) : raw_(raw)
    {
    }
    std::string_view text(uint32_t choice = 0) const
    {
        return { raw_->choices[choice].text, raw_->choices[choice].text_bytes };
    }
    const cinf_choice &operator[](uint32_t choice) const
    {
        return raw_->choices[choice];
    }
    const cinf_choice *begin() const noexcept
    {
        return raw_->choices;
    }
    const cinf_choice *end() const noexcept
    {
        return raw_->choices + raw_->n_choices;
    }
    const cinf_report &report() const noexcept
    {
        return raw_->report;
    }

  private:
    detail::handle<cinf_result> raw_;
};

/* A request under way: pull events until CINF_EVENT_END, or iterate.  Destroying it cancels it. */
class stream
{
  public:
    explicit stream(cinf_request *raw) : raw_(raw)
    {
    }

    /* The next event, or nothing if `timeout_ns` passed.  After the end, every call returns CINF_EVENT_END.
     */
    std::optional<cinf_event> next(uint64_t timeout_ns = UINT64_MAX)
    {
        cinf_event event = detail::sized<cinf_event>();
        cinf_status status = cinf_request_next(raw_.get(), timeout_ns, &event);
        if (status == CINF_EAGAIN)
            return std::nullopt;
        check(status);
        return event;
    }
    void cancel() noexcept
    {
        cinf_request_cancel(raw_.get(), CINF_FINISH_CANCELLED);
    }
    /* The request keeps its place and enters no step until pause(false). */
    void pause(bool pause = true) noexcept
    {
        cinf_request_pause(raw_.get(), pause);
    }
    cinf_report report() const
    {
        cinf_report r = detail::sized<cinf_report>();
        cinf_request_report(raw_.get(), &r);
        return r;
    }
    cinf_request *get() const noexcept
    {
        return raw_.get();
    }

    /* for (const cinf_event &event : stream): everything before the end. */
    class iterator
    {
      public:
        explicit iterator(stream *s) : stream_(s)
        {
            ++*this;
        }
        const cinf_event &operator*() const noexcept
        {
            return event_;
        }
        iterator &operator++()
        {
            if (stream_)
                event_ = *stream_->next();
            if (event_.kind == CINF_EVENT_END)
                stream_ = nullptr;
            return *this;
        }
        bool operator!=(std::nullptr_t) const noexcept
        {
            return stream_ != nullptr;
        }

      private:
        stream *stream_;
        cinf_event event_{};
    };
    iterator begin()
    {
        return iterator(this);
    }
    std::nullptr_t end() const noexcept
    {
        return nullptr;
    }

  private:
    detail::handle<cinf_request> raw_;
};

/* ---- Models and engines ----------------------------------------------------------------------- */

/* In C++ the struct's plain name would name the function that fills it. */
using model_info = struct ::cinf_model_info;

/* A counted handle on a loaded model.  Many threads may call its methods concurrently. */
class model
{
  public:
    explicit model(cinf_model *raw) : raw_(raw)
    {
    }

    /* Generates and waits.  `on_text` gets each piece of text and returns false to cancel; an exception from
     * it cancels the request and is rethrown. */
    result generate(const request &r,
                    const std::function<bool(uint32_t, std::string_view)> &on_text = nullptr) const
    {
        struct relay {
            const std::function<bool(uint32_t, std::string_view)> &call;
            std::exception_ptr thrown;
        } context{ on_text, nullptr };
        cinf_text_fn *hook = [](void *c, uint32_t choice, const char *text, size_t n) {
            relay *to = static_cast<relay *>(c);
            try {
                return to->call(choice, { text, n });
            } catch (...) {
                to->thrown = std::current_exception();
                return false;
            }
        };
        cinf_result *raw = nullptr;
        check(r.with_options([&](const cinf_request_options &o) {
            return cinf_generate(&raw, raw_.get(), &o, on_text ? hook : nullptr, &context);
        }));
        result whole(raw);
        if (context.thrown)
            std::rethrow_exception(context.thrown);
        return whole;
    }
    stream submit(const request &r) const
    {
        cinf_request *raw = nullptr;
        check(r.with_options(
            [&](const cinf_request_options &o) { return cinf_request_submit(&raw, raw_.get(), &o); }));
        return stream(raw);
    }

    std::vector<int32_t> encode(std::string_view text, unsigned flags = 0) const
    {
        int32_t *ids = nullptr;
        size_t n = 0;
        check(
            cinf_tokenizer_encode(tokenizer(), text.data() ? text.data() : "", text.size(), flags, &ids, &n));
        std::unique_ptr<int32_t, void (*)(int32_t *)> owned(ids, cinf_ids_free);
        return std::vector<int32_t>(ids, ids + n);
    }
    std::string decode(const std::vector<int32_t> &ids) const
    {
        char *text = nullptr;
        size_t n = 0;
        check(cinf_tokenizer_decode(tokenizer(), ids.data(), ids.size(), &text, &n));
        std::unique_ptr<char, void (*)(char *)> owned(text, cinf_text_free);
        return std::string(text, n);
    }
    /* log P of each token given those before it; the first is NaN. */
    std::vector<float> score(const std::vector<int32_t> &ids) const
    {
        std::vector<float> logprobs(ids.size());
        check(
            cinf_score(raw_.get(), ids.data(), static_cast<uint32_t>(ids.size()), logprobs.data(), nullptr));
        return logprobs;
    }
    /* [ids, vocabulary] */
    std::vector<float> logits(const std::vector<int32_t> &ids) const
    {
        std::vector<float> out(ids.size() * info().config.vocab_size);
        check(cinf_logits(raw_.get(), ids.data(), static_cast<uint32_t>(ids.size()), out.data(), nullptr));
        return out;
    }
    model_info info() const
    {
        model_info i = detail::sized<model_info>();
        cinf_model_info(raw_.get(), &i);
        return i;
    }
    void unload()
    {
        check(cinf_model_unload(raw_.get()));
    }
    cinf_model *get() const noexcept
    {
        return raw_.get();
    }

  private:
    const cinf_tokenizer *tokenizer() const
    {
        const cinf_tokenizer *t = cinf_model_tokenizer(raw_.get());
        return t ? t : throw error(CINF_EUNSUPPORTED, "the model has no tokenizer");
    }
    detail::handle<cinf_model> raw_;
};

/* The options of an engine.  Setters chain; strings are copied into it. */
class engine_options
{
  public:
    engine_options() : options_(detail::sized<cinf_engine_options>())
    {
    }
    engine_options &device(std::string name)
    {
        return set(options_.device, std::move(name));
    }
    engine_options &dollars_per_hour(std::string price)
    {
        return set(options_.dollars_per_hour, std::move(price));
    }
    /* Prices by the kind of device.  If either is set, the two replace dollars_per_hour(). */
    engine_options &cpu_dollars_per_hour(std::string price)
    {
        return set(options_.cpu_dollars_per_hour, std::move(price));
    }
    engine_options &gpu_dollars_per_hour(std::string price)
    {
        return set(options_.gpu_dollars_per_hour, std::move(price));
    }
    engine_options &threads(uint32_t n)
    {
        return options_.threads = n, *this;
    }
    engine_options &kv_memory(uint64_t bytes)
    {
        return options_.kv_memory = bytes, *this;
    }
    engine_options &speculation(bool on)
    {
        return options_.no_speculation = !on, *this;
    }
    /* Reuses what was computed of a prompt's beginning across payers. */
    engine_options &share_prefixes(bool on = true)
    {
        return options_.share_prefixes = on, *this;
    }
    engine_options &profile(bool on = true)
    {
        return options_.profile = on, *this;
    }
    engine_options &kv(cinf_kv type)
    {
        return options_.kv = type, *this;
    }
    engine_options &queue_max(uint32_t n)
    {
        return options_.queue_max = n, *this;
    }
    cinf_engine_options &raw() noexcept
    {
        return options_;
    }
    const cinf_engine_options &raw() const noexcept
    {
        return options_;
    }

    engine_options(const engine_options &) = delete; /* options_ points into texts_ */
    engine_options &operator=(const engine_options &) = delete;

  private:
    engine_options &set(const char *&field, std::string text)
    {
        texts_.push_back(std::move(text)); /* a deque, because its elements do not move */
        field = texts_.back().c_str();
        return *this;
    }
    cinf_engine_options options_;
    std::deque<std::string> texts_;
};

/* One device and the models on it.  The destructor cancels what runs and releases the device. */
class engine
{
  public:
    explicit engine(const engine_options &options = engine_options())
    {
        cinf_engine *raw = nullptr;
        check(cinf_engine_open(&raw, &options.raw()));
        raw_.reset(raw);
    }

    model load(const std::string &folder, const std::string &name = "",
               cinf_weights weights = CINF_WEIGHTS_AUTO)
    {
        cinf_model_options o = detail::sized<cinf_model_options>();
        o.folder = folder.c_str();
        o.name = name.empty() ? nullptr : name.c_str();
        o.weights = weights;
        return load(o);
    }
    model load(const cinf_model_options &options)
    {
        cinf_model *raw = nullptr;
        check(cinf_model_load(&raw, raw_.get(), &options));
        return model(raw);
    }
    model find(const std::string &name)
    {
        cinf_model *raw = nullptr;
        check(cinf_model_find(&raw, raw_.get(), name.c_str()));
        return model(raw);
    }
    snapshot costs() const
    {
        return snapshot(meter());
    }
    std::string metrics(cinf_exposition_format format = CINF_EXPOSITION_TEXT) const
    {
        return costinfer::metrics(meter(), format);
    }
    void set_price(const std::string &dollars_per_hour)
    {
        check(cinf_engine_set_price(raw_.get(), dollars_per_hour.c_str()));
    }
    /* The kernels (on device "cpu", the phases) of an engine with engine_options::profile(), the longest
     * first. */
    std::vector<cinf_profile_row> profile() const
    {
        std::vector<cinf_profile_row> rows(256);
        uint32_t n = 0;
        check(cinf_engine_profile(&n, raw_.get(), rows.data(), static_cast<uint32_t>(rows.size())));
        rows.resize(n);
        return rows;
    }
    cinf_device_info device() const
    {
        cinf_device_info info = detail::sized<cinf_device_info>();
        cinf_engine_device(raw_.get(), &info);
        return info;
    }
    const cinf_meter *meter() const noexcept
    {
        return cinf_engine_meter(raw_.get());
    }
    cinf_engine *get() const noexcept
    {
        return raw_.get();
    }

  private:
    detail::handle<cinf_engine> raw_;
};

} // namespace costinfer

#endif
