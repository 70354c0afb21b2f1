// Package costinfer runs GPT-2 models and accounts for what they cost.  It is the Go binding of the C library
// libcostinfer.
//
//	engine, err := costinfer.Open(costinfer.Options{DollarsPerHour: "0.10"})
//	...
//	defer engine.Close()
//	model, err := engine.Load("examples/models/stories-small", costinfer.ModelOptions{})
//	...
//	result, err := model.Generate(ctx, costinfer.Request{Prompt: "Once upon a time", MaxTokens: 40})
//	fmt.Println(result.Choices[0].Text, result.Report.Cost)
//
// pkg-config finds the library and cgo links it.  Many goroutines may use an Engine or a Model concurrently; a Stream
// belongs to one goroutine.  A request whose context is done leaves the device before the next step and is billed for
// what was computed.
package costinfer

/*
#cgo pkg-config: libcostinfer
#include <costinfer/costinfer.h>
#include <stdlib.h>
*/
import "C"

import (
	"context"
	"fmt"
	"math/big"
	"runtime"
	"sync"
	"time"
	"unsafe"
)

// Status is why a call failed; compare with errors.Is:
//
//	if errors.Is(err, costinfer.NotFound) { … }
type Status int

const (
	Invalid Status = iota + 1
	NoMemory
	InputOutput
	Malformed
	Unsupported
	NotFound
	Exists
	Busy
	Full
	ContextLength
	DeviceFailed
	Cancelled
	Closed
	again
)

func (s Status) Error() string { return C.GoString(C.cinf_status_name(C.enum_cinf_status(s))) }

// Error is a failed call: its status and one line of explanation.
type Error struct {
	Status  Status
	Message string
}

func (e *Error) Error() string { return e.Message }
func (e *Error) Unwrap() error { return e.Status }

// call runs a C function.  The goroutine stays on one thread until its message is read, because C keeps one message
// for each thread.
func call(f func() C.enum_cinf_status) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if status := f(); status != C.CINF_OK {
		return &Error{Status(status), C.GoString(C.cinf_last_error())}
	}
	return nil
}

// Version returns the version of the C library.
func Version() string { return C.GoString(C.cinf_version()) }

// Cost is an exact amount of money.
type Cost struct{ c C.struct_cinf_cost }

// CostOf returns what a time costs at a price: the time multiplied by the rate, divided by an hour.
func CostOf(ns uint64, dollarsPerHour string) (Cost, error) {
	text := C.CString(dollarsPerHour)
	defer C.free(unsafe.Pointer(text))
	var price C.uint64_t
	if err := call(func() C.enum_cinf_status { return C.cinf_price_parse(&price, text) }); err != nil {
		return Cost{}, err
	}
	return Cost{C.cinf_cost_of(C.uint64_t(ns), price)}, nil
}

// Add adds without rounding.
func (a Cost) Add(b Cost) Cost { return Cost{C.cinf_cost_add(a.c, b.c)} }

// Rat returns the exact amount in dollars.
func (a Cost) Rat() *big.Rat {
	units := new(big.Int).SetUint64(uint64(a.c.hi))
	units.Or(units.Lsh(units, 64), new(big.Int).SetUint64(uint64(a.c.lo)))
	perDollar, _ := new(big.Int).SetString("3600000000000000000000", 10)
	return new(big.Rat).SetFrac(units, perDollar)
}

// String returns the amount in dollars with 12 decimals, rounded half up.
func (a Cost) String() string {
	var text [C.CINF_COST_TEXT_MAX]C.char
	return C.GoString(C.cinf_cost_format(&text[0], a.c))
}

// Report is what one request used.
type Report struct {
	Finish                                  string // "stop", "length", "cancelled" …
	InputTokens, CachedTokens, OutputTokens uint32
	Queue, Latency, FirstToken              time.Duration
	Device, Prefill, Decode, Unpriced       time.Duration // Device = Prefill + Decode
	Cost                                    Cost
	DraftedTokens, AcceptedTokens           uint32        // draft tokens that speculation computed, and those accepted as output
	Lost                                    time.Duration // part of Latency in which the process could not run; no request pays
	Start                                   time.Duration // when Latency begins, since the meter was opened
}

func reportOf(r *C.struct_cinf_report) Report {
	d := func(ns C.uint64_t) time.Duration { return time.Duration(ns) }
	return Report{C.GoString(C.cinf_finish_name(r.finish)), uint32(r.input_tokens), uint32(r.cached_tokens),
		uint32(r.output_tokens), d(r.queue_ns), d(r.latency_ns), d(r.first_token_ns), d(r.device_ns),
		d(r.prefill_ns), d(r.decode_ns), d(r.unpriced_ns), Cost{r.cost}, uint32(r.drafted_tokens),
		uint32(r.accepted_tokens), d(r.lost_ns), d(r.start_ns)}
}

// ModelCosts is one model's account.
type ModelCosts struct {
	Name                                    string
	Loaded                                  bool
	Serve, Prefill, Decode, Load            time.Duration
	ServeCost, LoadCost                     Cost
	InputTokens, CachedTokens, OutputTokens uint64
	Finished                                map[string]uint64
	Running, Waiting                        uint64
}

// PayerCosts is one payer's account with one model.
type PayerCosts struct {
	Model, Payer                            string
	Serve, Prefill, Decode                  time.Duration
	Cost                                    Cost
	InputTokens, CachedTokens, OutputTokens uint64
	Requests                                uint64
}

// Costs is one consistent snapshot of a device: Serve + Load + Idle + Lost + Overhead = AsOf.
type Costs struct {
	Device                        string
	AsOf, Serve, Load, Idle       time.Duration
	ServeCost, LoadCost, IdleCost Cost
	Models                        []ModelCosts
	Lost, Overhead                time.Duration // the process could not run; CPU time of threads that are not the device's
	LostCost, OverheadCost        Cost
	Payers                        []PayerCosts
}

// Options are the options of an engine; the zero value is ready to use.
type Options struct {
	Device         string // "" is "auto"
	Threads        uint32
	KVMemory       uint64
	KV             string // type of keys and values: "f32" ("") or "f16"
	NoSpeculation  bool   // at most one token of a sequence in a step
	QueueMax       uint32
	DollarsPerHour string // "": unpriced
	Profile        bool   // time every kernel, where the device can, for Engine.Profile
	// Prices by the kind of device.  If either is set, the two replace DollarsPerHour.
	CPUDollarsPerHour, GPUDollarsPerHour string
	SharePrefixes                        bool // reuse what was computed of a prompt's beginning across payers
}

// Engine is one device and the models on it.
type Engine struct {
	mu sync.RWMutex // keeps Close from running during another call
	c  *C.struct_cinf_engine
}

// texts are C strings that live until a call returns.
type texts []*C.char

func (t *texts) add(s string) *C.char {
	*t = append(*t, C.CString(s))
	return (*t)[len(*t)-1]
}

func (t *texts) orNil(s string) *C.char {
	if s == "" {
		return nil
	}
	return t.add(s)
}

func (t texts) free() {
	for _, s := range t {
		C.free(unsafe.Pointer(s))
	}
}

// Open opens a device.
func Open(o Options) (*Engine, error) {
	var t texts
	defer func() { t.free() }()
	var options C.struct_cinf_engine_options
	options.struct_size = C.sizeof_struct_cinf_engine_options
	options.device = t.orNil(o.Device)
	options.threads = C.uint32_t(o.Threads)
	options.kv_memory = C.uint64_t(o.KVMemory)
	if o.KV != "" {
		name := t.orNil(o.KV)
		if err := call(func() C.enum_cinf_status { return C.cinf_kv_parse(&options.kv, name) }); err != nil {
			return nil, err
		}
	}
	options.queue_max = C.uint32_t(o.QueueMax)
	options.no_speculation = C.bool(o.NoSpeculation)
	options.profile = C.bool(o.Profile)
	options.share_prefixes = C.bool(o.SharePrefixes)
	options.dollars_per_hour = t.orNil(o.DollarsPerHour)
	options.cpu_dollars_per_hour, options.gpu_dollars_per_hour = t.orNil(o.CPUDollarsPerHour), t.orNil(o.GPUDollarsPerHour)
	e := new(Engine)
	var c *C.struct_cinf_engine
	if err := call(func() C.enum_cinf_status { return C.cinf_engine_open(&c, &options) }); err != nil {
		return nil, err
	}
	e.c = c
	runtime.SetFinalizer(e, (*Engine).Close)
	return e, nil
}

// Close cancels the running requests and releases the device.  Further calls have no effect.
func (e *Engine) Close() {
	e.mu.Lock()
	c := e.c
	e.c = nil
	e.mu.Unlock()
	C.cinf_engine_close(c)
}

// with runs f while the engine cannot be closed.
func (e *Engine) with(f func(*C.struct_cinf_engine) C.enum_cinf_status) error {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if e.c == nil {
		return &Error{Closed, "the engine was closed"}
	}
	return call(func() C.enum_cinf_status { return f(e.c) })
}

// SetPrice changes the price from the next boundary on.
func (e *Engine) SetPrice(dollarsPerHour string) error {
	text := C.CString(dollarsPerHour)
	defer C.free(unsafe.Pointer(text))
	return e.with(func(c *C.struct_cinf_engine) C.enum_cinf_status { return C.cinf_engine_set_price(c, text) })
}

// Kernel is the time of one kernel since the engine was opened, by the device's own clock; on device "cpu" the time of
// one kind of a step's phases.
type Kernel struct {
	Name     string
	Launches uint64
	Device   time.Duration
}

// Profile returns the kernels, the longest first.  It fails with Unsupported without Options.Profile, and on a device
// that cannot time kernels.
func (e *Engine) Profile() ([]Kernel, error) {
	var rows [256]C.struct_cinf_profile_row
	var n C.uint32_t
	if err := e.with(func(c *C.struct_cinf_engine) C.enum_cinf_status {
		return C.cinf_engine_profile(&n, c, &rows[0], C.uint32_t(len(rows)))
	}); err != nil {
		return nil, err
	}
	kernels := make([]Kernel, n)
	for i := range kernels {
		kernels[i] = Kernel{C.GoString(&rows[i].name[0]), uint64(rows[i].launches), time.Duration(rows[i].device_ns)}
	}
	return kernels, nil
}

// Costs returns a snapshot of who used the machine.
func (e *Engine) Costs() (Costs, error) {
	return costsOf(func(s *C.struct_cinf_snapshot) error {
		return e.with(func(c *C.struct_cinf_engine) C.enum_cinf_status {
			return C.cinf_meter_snapshot(s, C.cinf_engine_meter(c))
		})
	})
}

func costsOf(fill func(*C.struct_cinf_snapshot) error) (Costs, error) {
	s := (*C.struct_cinf_snapshot)(C.calloc(1, C.sizeof_struct_cinf_snapshot))
	defer C.free(unsafe.Pointer(s))
	s.struct_size = C.sizeof_struct_cinf_snapshot
	if err := fill(s); err != nil {
		return Costs{}, err
	}
	defer C.cinf_snapshot_free(s)
	d := func(ns C.uint64_t) time.Duration { return time.Duration(ns) }
	costs := Costs{C.GoString(s.device), d(s.as_of_ns), d(s.serve_ns), d(s.load_ns), d(s.idle_ns),
		Cost{s.serve_cost}, Cost{s.load_cost}, Cost{s.idle_cost}, nil, d(s.lost_ns), d(s.overhead_ns),
		Cost{s.lost_cost}, Cost{s.overhead_cost}, nil}
	for _, m := range unsafe.Slice(s.models, int(s.n_models)) {
		finished := make(map[string]uint64)
		for i := 1; i < C.CINF_FINISH_COUNT; i++ {
			finished[C.GoString(C.cinf_finish_name(C.enum_cinf_finish(i)))] = uint64(m.finished[i])
		}
		costs.Models = append(costs.Models, ModelCosts{C.GoString(m.name), bool(m.loaded), d(m.serve_ns),
			d(m.prefill_ns), d(m.decode_ns), d(m.load_ns), Cost{m.serve_cost}, Cost{m.load_cost},
			uint64(m.input_tokens), uint64(m.cached_tokens), uint64(m.output_tokens), finished,
			uint64(m.running), uint64(m.waiting)})
	}
	for _, p := range unsafe.Slice(s.payers, int(s.n_payers)) {
		costs.Payers = append(costs.Payers, PayerCosts{costs.Models[p.model].Name, C.GoString(p.payer), d(p.serve_ns),
			d(p.prefill_ns), d(p.decode_ns), Cost{p.cost}, uint64(p.input_tokens), uint64(p.cached_tokens),
			uint64(p.output_tokens), uint64(p.requests)})
	}
	return costs, nil
}

// Metrics returns a page for Prometheus and its content type; accept is the scraper's Accept header.
func (e *Engine) Metrics(accept string) (contentType, page string, err error) {
	format := formatOf(accept)
	err = e.with(func(c *C.struct_cinf_engine) C.enum_cinf_status {
		return pageOf(&page, C.cinf_engine_meter(c), format)
	})
	return C.GoString(C.cinf_exposition_content_type(format)), page, err
}

func formatOf(accept string) C.enum_cinf_exposition_format {
	text := C.CString(accept)
	defer C.free(unsafe.Pointer(text))
	return C.cinf_exposition_negotiate(text)
}

func pageOf(page *string, m *C.struct_cinf_meter, format C.enum_cinf_exposition_format) C.enum_cinf_status {
	var out *C.struct_cinf_exposition
	if status := C.cinf_exposition_new(&out, format); status != C.CINF_OK {
		return status
	}
	defer C.cinf_exposition_free(out)
	var text *C.char
	var n C.size_t
	status := C.cinf_exposition_meter(out, m)
	if status == C.CINF_OK {
		status = C.cinf_exposition_finish(out, &text, &n)
	}
	if status == C.CINF_OK {
		*page = C.GoStringN(text, C.int(n))
	}
	return status
}

// ModelOptions are the options of Load; the zero value is ready to use.
type ModelOptions struct {
	Name    string // "": the folder's last part
	Weights string // "": as stored
	Slots   uint32
}

// Model is a loaded model.
type Model struct {
	c *C.struct_cinf_model
}

func modelOf(c *C.struct_cinf_model) *Model {
	m := &Model{c}
	runtime.SetFinalizer(m, func(m *Model) { C.cinf_model_release(m.c) })
	return m
}

// Load loads a checkpoint's folder while other models continue to serve.
func (e *Engine) Load(folder string, o ModelOptions) (*Model, error) {
	var t texts
	defer func() { t.free() }()
	var options C.struct_cinf_model_options
	options.struct_size = C.sizeof_struct_cinf_model_options
	options.folder = t.add(folder)
	options.name = t.orNil(o.Name)
	options.slots = C.uint32_t(o.Slots)
	if o.Weights != "" {
		name := t.add(o.Weights)
		if err := call(func() C.enum_cinf_status { return C.cinf_weights_parse(&options.weights, name) }); err != nil {
			return nil, err
		}
	}
	var c *C.struct_cinf_model
	if err := e.with(func(engine *C.struct_cinf_engine) C.enum_cinf_status {
		return C.cinf_model_load(&c, engine, &options)
	}); err != nil {
		return nil, err
	}
	return modelOf(c), nil
}

// Find returns a loaded model by its name.
func (e *Engine) Find(name string) (*Model, error) {
	text := C.CString(name)
	defer C.free(unsafe.Pointer(text))
	var c *C.struct_cinf_model
	if err := e.with(func(engine *C.struct_cinf_engine) C.enum_cinf_status {
		return C.cinf_model_find(&c, engine, text)
	}); err != nil {
		return nil, err
	}
	return modelOf(c), nil
}

// Unload refuses new requests, waits for the running ones and frees the weights.
func (m *Model) Unload() error {
	defer runtime.KeepAlive(m)
	return call(func() C.enum_cinf_status { return C.cinf_model_unload(m.c) })
}

// Encode returns the token ids of a text.
func (m *Model) Encode(text string) ([]int32, error) { return m.encode(text, 0) }

// EncodeSpecial does the same, and reads "<|endoftext|>" and other special tokens in the text as tokens.  Do not use it
// for untrusted text.
func (m *Model) EncodeSpecial(text string) ([]int32, error) {
	return m.encode(text, C.CINF_TOKENIZE_SPECIAL)
}

func (m *Model) encode(text string, flags C.uint) ([]int32, error) {
	defer runtime.KeepAlive(m)
	bytes := C.CString(text)
	defer C.free(unsafe.Pointer(bytes))
	var ids *C.int32_t
	var n C.size_t
	if err := call(func() C.enum_cinf_status {
		return C.cinf_tokenizer_encode(C.cinf_model_tokenizer(m.c), bytes, C.size_t(len(text)), flags, &ids, &n)
	}); err != nil {
		return nil, err
	}
	defer C.cinf_ids_free(ids)
	return append([]int32{}, unsafe.Slice((*int32)(ids), int(n))...), nil
}

// Decode returns the text of token ids.
func (m *Model) Decode(ids []int32) (string, error) {
	defer runtime.KeepAlive(m)
	var text *C.char
	var n C.size_t
	if err := call(func() C.enum_cinf_status {
		return C.cinf_tokenizer_decode(C.cinf_model_tokenizer(m.c), idsOf(ids), C.size_t(len(ids)), &text, &n)
	}); err != nil {
		return "", err
	}
	defer C.cinf_text_free(text)
	return C.GoStringN(text, C.int(n)), nil
}

func idsOf(ids []int32) *C.int32_t {
	if len(ids) == 0 {
		return nil
	}
	return (*C.int32_t)(unsafe.Pointer(&ids[0]))
}

// Score returns log P of each token given those before it; the first is NaN.
func (m *Model) Score(ids []int32) ([]float32, error) {
	defer runtime.KeepAlive(m)
	out := make([]float32, len(ids)+1)
	err := call(func() C.enum_cinf_status {
		return C.cinf_score(m.c, idsOf(ids), C.uint32_t(len(ids)), (*C.float)(unsafe.Pointer(&out[0])), nil)
	})
	return out[:len(ids)], err
}

// ModelInfo describes a model.
type ModelInfo struct {
	Name, Folder, Notes, Weights string
	Parameters                   uint64
	Slots                        uint32
	Loaded                       bool
	VocabSize, Positions         uint32
}

// Info returns the model's description.
func (m *Model) Info() ModelInfo {
	defer runtime.KeepAlive(m)
	var i C.struct_cinf_model_info
	i.struct_size = C.sizeof_struct_cinf_model_info
	C.cinf_model_info(m.c, &i)
	return ModelInfo{C.GoString(i.name), C.GoString(i.folder), C.GoString(i.notes),
		C.GoString(C.cinf_weights_name(i.weights)), uint64(i.parameters), uint32(i.slots), bool(i.loaded),
		uint32(i.config.vocab_size), uint32(i.config.n_positions)}
}

// Logits returns the logits of every position: [len(ids)][vocabulary].
func (m *Model) Logits(ids []int32) ([][]float32, error) {
	defer runtime.KeepAlive(m)
	vocab := int(m.Info().VocabSize)
	all := make([]float32, len(ids)*vocab+1)
	if err := call(func() C.enum_cinf_status {
		return C.cinf_logits(m.c, idsOf(ids), C.uint32_t(len(ids)), (*C.float)(unsafe.Pointer(&all[0])), nil)
	}); err != nil {
		return nil, err
	}
	rows := make([][]float32, len(ids))
	for i := range rows {
		rows[i] = all[i*vocab : (i+1)*vocab : (i+1)*vocab]
	}
	return rows, nil
}

// Request is a prompt and how to continue it.  The zero value of every field is its default.
type Request struct {
	Prompt                  string
	Special                 bool    // "<|endoftext|>" and other special tokens in Prompt are tokens
	PromptIDs               []int32 // used instead of Prompt if not empty
	MaxTokens               uint32
	IgnoreEOS               bool
	Stop                    []string
	N                       uint32
	Temperature, TopP, MinP float32
	TypicalP                float32
	TopK                    uint32
	RepetitionPenalty       float32
	PresencePenalty         float32
	FrequencyPenalty        float32
	LogitBias               map[int32]float32
	Seed                    uint64
	Logprobs                bool
	TopLogprobs             uint32        // the number of alternatives at each position; implies Logprobs
	Timeout                 time.Duration // 0: no limit; a negative one has already expired
	UnreadMax               uint32        // with this many unread events the request pauses; 0: no limit
	MinTokens               uint32        // nothing but MaxTokens ends the text before so many
	StopTokenIDs            []int32       // they end the text, and are not part of it
	Payer                   string        // who pays; "": anonymous
}

// Logprob is a token and its log-probability.
type Logprob struct {
	Token   int32
	Logprob float32
}

// Event is one token of a choice, or its end.
type Event struct {
	Choice  int
	Token   int32     // -1 at the end
	Text    string    // whole characters that became certain, perhaps none
	Logprob float32   // if asked for
	Top     []Logprob // if asked for, the most likely first
	Finish  string    // "" except at the end of the choice
}

// Stream is a request under way.
type Stream struct {
	c      *C.struct_cinf_request
	report *Report
}

// Submit queues a request.  The caller closes the stream.
func (m *Model) Submit(r Request) (*Stream, error) {
	defer runtime.KeepAlive(m)
	var t texts
	defer func() { t.free() }()
	// Memory that C reads through pointers must be C's own.
	allocate := func(n int, size C.size_t) unsafe.Pointer {
		p := (*C.char)(C.calloc(C.size_t(n)+1, size))
		t = append(t, p)
		return unsafe.Pointer(p)
	}
	o := (*C.struct_cinf_request_options)(allocate(1, C.sizeof_struct_cinf_request_options))
	o.struct_size = C.sizeof_struct_cinf_request_options
	o.prompt, o.prompt_bytes = t.add(r.Prompt), C.size_t(len(r.Prompt))
	if r.Special {
		o.tokenize_flags = C.CINF_TOKENIZE_SPECIAL
	}
	if len(r.PromptIDs) > 0 {
		o.prompt_ids = (*C.int32_t)(allocate(len(r.PromptIDs), 4))
		copy(unsafe.Slice((*int32)(o.prompt_ids), len(r.PromptIDs)), r.PromptIDs)
		o.n_prompt_ids = C.uint32_t(len(r.PromptIDs))
	}
	o.max_tokens, o.ignore_eos, o.n = C.uint32_t(r.MaxTokens), C.bool(r.IgnoreEOS), C.uint32_t(r.N)
	if len(r.Stop) > 0 {
		o.stop = (**C.char)(allocate(len(r.Stop), C.size_t(unsafe.Sizeof(o.prompt))))
		for i, s := range r.Stop {
			unsafe.Slice(o.stop, len(r.Stop))[i] = t.add(s)
		}
		o.n_stop = C.uint32_t(len(r.Stop))
	}
	if len(r.LogitBias) > 0 {
		o.logit_bias = (*C.struct_cinf_logit_bias)(allocate(len(r.LogitBias), C.sizeof_struct_cinf_logit_bias))
		for token, bias := range r.LogitBias {
			b := &unsafe.Slice(o.logit_bias, len(r.LogitBias))[o.n_logit_bias]
			b.token, b.bias = C.int32_t(token), C.float(bias)
			o.n_logit_bias++
		}
	}
	if len(r.StopTokenIDs) > 0 {
		o.stop_token_ids = (*C.int32_t)(allocate(len(r.StopTokenIDs), 4))
		copy(unsafe.Slice((*int32)(o.stop_token_ids), len(r.StopTokenIDs)), r.StopTokenIDs)
		o.n_stop_token_ids = C.uint32_t(len(r.StopTokenIDs))
	}
	if r.Payer != "" {
		o.payer = t.add(r.Payer)
	}
	o.min_tokens = C.uint32_t(r.MinTokens)
	o.temperature, o.top_p, o.min_p = C.float(r.Temperature), C.float(r.TopP), C.float(r.MinP)
	o.typical_p = C.float(r.TypicalP)
	o.top_k, o.seed, o.logprobs = C.uint32_t(r.TopK), C.uint64_t(r.Seed), C.bool(r.Logprobs)
	o.repetition_penalty, o.presence_penalty = C.float(r.RepetitionPenalty), C.float(r.PresencePenalty)
	o.frequency_penalty, o.top_logprobs = C.float(r.FrequencyPenalty), C.uint32_t(r.TopLogprobs)
	o.timeout_ns, o.unread_max = C.uint64_t(r.Timeout), C.uint32_t(r.UnreadMax)
	if r.Timeout < 0 {
		o.timeout_ns = 1
	}
	var c *C.struct_cinf_request
	if err := call(func() C.enum_cinf_status { return C.cinf_request_submit(&c, m.c, o) }); err != nil {
		return nil, err
	}
	s := &Stream{c: c}
	runtime.SetFinalizer(s, (*Stream).Close)
	return s, nil
}

// Next waits for the next event; it returns nil at the end.  When ctx is done, Next cancels the request and returns
// ctx's error.
func (s *Stream) Next(ctx context.Context) (*Event, error) {
	defer runtime.KeepAlive(s)
	const slice = 20 * time.Millisecond
	var e C.struct_cinf_event
	for s.c != nil {
		if err := ctx.Err(); err != nil {
			C.cinf_request_cancel(s.c, C.CINF_FINISH_CANCELLED)
			return nil, err
		}
		e.struct_size = C.sizeof_struct_cinf_event
		err := call(func() C.enum_cinf_status { return C.cinf_request_next(s.c, C.uint64_t(slice), &e) })
		if failure, ok := err.(*Error); ok && failure.Status == again {
			continue
		} else if err != nil {
			return nil, err
		}
		switch e.kind {
		case C.CINF_EVENT_PROMPT:
			continue
		case C.CINF_EVENT_END:
			if e.finish == C.CINF_FINISH_FAILED {
				return nil, &Error{DeviceFailed, C.GoString(C.cinf_request_failure(s.c))}
			}
			return nil, nil
		}
		event := &Event{Choice: int(e.choice), Token: int32(e.token), Logprob: float32(e.logprob),
			Text: C.GoStringN(e.text, C.int(e.text_bytes))}
		for _, top := range unsafe.Slice(e.top, int(e.n_top)) {
			event.Top = append(event.Top, Logprob{int32(top.token), float32(top.logprob)})
		}
		if e.kind == C.CINF_EVENT_FINISH {
			event.Finish = C.GoString(C.cinf_finish_name(e.finish))
		}
		return event, nil
	}
	return nil, &Error{Closed, "the stream was closed"}
}

// Pause takes the request out of the device's steps (true) or puts it back (false).  While paused, it keeps its place
// and costs nothing.
func (s *Stream) Pause(pause bool) {
	defer runtime.KeepAlive(s)
	if s.c != nil {
		C.cinf_request_pause(s.c, C.bool(pause))
	}
}

// Report returns the report so far, or the final one after the end or Close.
func (s *Stream) Report() Report {
	defer runtime.KeepAlive(s)
	if s.report != nil {
		return *s.report
	}
	var r C.struct_cinf_report
	r.struct_size = C.sizeof_struct_cinf_report
	C.cinf_request_report(s.c, &r)
	return reportOf(&r)
}

// Close cancels the request if it runs, and releases it; the final report stays readable.
func (s *Stream) Close() {
	if s.c == nil {
		return
	}
	var e C.struct_cinf_event
	e.struct_size = C.sizeof_struct_cinf_event
	C.cinf_request_cancel(s.c, C.CINF_FINISH_CANCELLED)
	for C.cinf_request_next(s.c, C.UINT64_MAX, &e) == C.CINF_OK && e.kind != C.CINF_EVENT_END {
	}
	report := s.Report()
	s.report = &report
	C.cinf_request_free(s.c)
	s.c = nil
}

// Choice is one finished continuation.
type Choice struct {
	Text     string
	IDs      []int32
	Logprobs []float32 // if asked for
	Top      [][]Logprob
	Finish   string
}

// Result is a finished generation.
type Result struct {
	Choices []Choice
	Report  Report
}

// Generate submits a request, waits for it and returns all of its choices.
func (m *Model) Generate(ctx context.Context, r Request) (*Result, error) {
	s, err := m.Submit(r)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	n := int(r.N)
	if n == 0 {
		n = 1
	}
	result := &Result{Choices: make([]Choice, n)}
	for {
		e, err := s.Next(ctx)
		if err != nil {
			return nil, err
		}
		if e == nil {
			result.Report = s.Report()
			return result, nil
		}
		if e.Choice >= n {
			return nil, fmt.Errorf("costinfer: an event of choice %d of %d", e.Choice, n)
		}
		c := &result.Choices[e.Choice]
		c.Text += e.Text
		if e.Finish != "" {
			c.Finish = e.Finish
			continue
		}
		c.IDs = append(c.IDs, e.Token)
		if r.Logprobs || r.TopLogprobs > 0 {
			c.Logprobs = append(c.Logprobs, e.Logprob)
		}
		if r.TopLogprobs > 0 {
			c.Top = append(c.Top, e.Top)
		}
	}
}
