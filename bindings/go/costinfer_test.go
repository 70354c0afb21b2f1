package costinfer

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"os"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
)

// The scenario that all bindings share (tests/conformance).
type scenario struct {
	Model, Device  string
	DollarsPerHour string `json:"dollars_per_hour"`
	Tokenize       []struct {
		Text    string
		Special bool
		IDs     []int32
	}
	Generate []struct {
		Name, Prompt string
		Special      bool
		Temperature  float32
		TypicalP     float32 `json:"typical_p"`
		MaxTokens    uint32  `json:"max_tokens"`
		N            uint32
		Stop         []string
		LogitBias    []struct {
			Token int32
			Bias  float32
		} `json:"logit_bias"`
		Choices []struct {
			Text, Finish string
			IDs          []int32
		}
		InputTokens  uint32 `json:"input_tokens"`
		OutputTokens uint32 `json:"output_tokens"`
	}
	Score []struct {
		IDs []int32
		Sum float64
	}
	Logprobs []struct {
		Prompt    string
		MaxTokens uint32 `json:"max_tokens"`
		Top       uint32
		IDs       []int32
		Logprobs  []float32
		TopIDs    [][]int32 `json:"top_ids"`
	}
	Logits []struct {
		IDs        []int32
		Vocabulary int
		Best       []int
		BestLogits []float32 `json:"best_logits"`
	}
	Pause []struct {
		Prompt    string
		MaxTokens uint32 `json:"max_tokens"`
	}
	Meter []struct {
		Device, Model  string
		DollarsPerHour string `json:"dollars_per_hour"`
		Shares         []struct {
			PrefillWeight uint64 `json:"prefill_weight"`
			DecodeWeight  uint64 `json:"decode_weight"`
			InputTokens   uint32 `json:"input_tokens"`
			CachedTokens  uint32 `json:"cached_tokens"`
			OutputTokens  uint32 `json:"output_tokens"`
			Finish        string
		}
	}
	GPUMemory []struct {
		Used, Total, Taken uint64
		Has                []string
		Lacks              string
	} `json:"gpu_memory"`
	Cost []struct {
		NS             uint64
		DollarsPerHour string `json:"dollars_per_hour"`
		Dollars        string
	}
	Errors []struct {
		Call, Folder, Name, Price, Device, Status string
		IDs                                       []int32
		Repeat                                    int
	}
}

func folder(t *testing.T) string {
	models := os.Getenv("COSTINFER_MODELS")
	if models == "" {
		models = "../../examples/models"
	}
	if _, err := os.Stat(models + "/stories-small"); err != nil {
		t.Skip(err)
	}
	return models + "/stories-small"
}

func open(t *testing.T) (*Engine, *Model) {
	e, err := Open(Options{Device: "cpu-reference", DollarsPerHour: "2.50"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	m, err := e.Load(folder(t), ModelOptions{Name: "small"})
	if err != nil {
		t.Fatal(err)
	}
	return e, m
}

func costs(t *testing.T, e *Engine) Costs {
	c, err := e.Costs()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func near(a, b float32) bool { return math.Abs(float64(a)-float64(b)) < 1e-3 }

func paused(t *testing.T, m *Model, r Request) {
	ctx := context.Background()
	whole, err := m.Generate(ctx, r)
	if err != nil {
		t.Fatal(err)
	}
	s, err := m.Submit(r)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	text := ""
	for first := true; ; first = false {
		e, err := s.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if e == nil {
			break
		}
		text += e.Text
		if first {
			s.Pause(true)
			// The running step still counts.
			before, after := Report{}, s.Report()
			for i := 0; i < 100 && after != before; i++ {
				time.Sleep(30 * time.Millisecond)
				before, after = after, s.Report()
			}
			if after != before || after.Finish != "running" || after.OutputTokens >= r.MaxTokens {
				t.Errorf("%+v, then %+v", before, after)
			}
			s.Pause(false)
		}
	}
	if report := s.Report(); text != whole.Choices[0].Text || report.OutputTokens != r.MaxTokens {
		t.Errorf("%q: %+v", text, report)
	}
}

func TestScenario(t *testing.T) {
	path := os.Getenv("COSTINFER_SCENARIO")
	if path == "" {
		path = "../../tests/conformance/scenario.json"
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var s scenario
	if err := json.Unmarshal(data, &s); err != nil {
		t.Fatal(err)
	}
	e, err := Open(Options{Device: s.Device, DollarsPerHour: s.DollarsPerHour})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	m, err := e.Load(folder(t), ModelOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range s.Tokenize {
		encode := m.Encode
		if c.Special {
			encode = m.EncodeSpecial
		}
		ids, err := encode(c.Text)
		if err != nil || !reflect.DeepEqual(ids, c.IDs) {
			t.Errorf("%q: %v %v", c.Text, ids, err)
		}
		if text, err := m.Decode(c.IDs); err != nil || text != c.Text {
			t.Errorf("%v: %q %v", c.IDs, text, err)
		}
	}
	var served time.Duration
	for _, c := range s.Generate {
		r := Request{Prompt: c.Prompt, Special: c.Special, MaxTokens: c.MaxTokens, N: c.N, Stop: c.Stop,
			Temperature: c.Temperature, TypicalP: c.TypicalP}
		for _, b := range c.LogitBias {
			r.LogitBias = map[int32]float32{b.Token: b.Bias}
		}
		result, err := m.Generate(context.Background(), r)
		if err != nil {
			t.Fatal(c.Name, err)
		}
		if len(result.Choices) != len(c.Choices) {
			t.Fatal(c.Name, len(result.Choices))
		}
		for i, want := range c.Choices {
			got := result.Choices[i]
			if got.Text != want.Text || got.Finish != want.Finish || !reflect.DeepEqual(got.IDs, want.IDs) {
				t.Errorf("%s: %+v", c.Name, got)
			}
		}
		if result.Report.InputTokens != c.InputTokens || result.Report.OutputTokens != c.OutputTokens {
			t.Errorf("%s: %+v", c.Name, result.Report)
		}
		if want, _ := CostOf(uint64(result.Report.Device), s.DollarsPerHour); want != result.Report.Cost {
			t.Errorf("%s: %v, want %v", c.Name, result.Report.Cost, want)
		}
		served += result.Report.Device
	}
	if got := costs(t, e).Serve; got != served {
		t.Errorf("served %v, want %v", got, served)
	}
	for _, c := range s.Score {
		scores, err := m.Score(c.IDs)
		if err != nil || !math.IsNaN(float64(scores[0])) {
			t.Fatal(scores, err)
		}
		sum := 0.0
		for _, x := range scores[1:] {
			sum += float64(x)
		}
		if math.Abs(sum-c.Sum) > 1e-3 {
			t.Errorf("%v: %v, want %v", c.IDs, sum, c.Sum)
		}
	}
	for _, c := range s.Logprobs {
		r, err := m.Generate(context.Background(), Request{Prompt: c.Prompt, MaxTokens: c.MaxTokens, TopLogprobs: c.Top})
		if err != nil {
			t.Fatal(err)
		}
		got := r.Choices[0]
		if !reflect.DeepEqual(got.IDs, c.IDs) || len(got.Logprobs) != len(c.IDs) || len(got.Top) != len(c.IDs) {
			t.Fatalf("%+v", got)
		}
		for i := range c.IDs {
			var top []int32
			for _, x := range got.Top[i] {
				top = append(top, x.Token)
			}
			if !near(got.Logprobs[i], c.Logprobs[i]) || !reflect.DeepEqual(top, c.TopIDs[i]) {
				t.Errorf("token %d: %v %v", i, got.Logprobs[i], got.Top[i])
			}
		}
	}
	for _, c := range s.Logits {
		rows, err := m.Logits(c.IDs)
		if err != nil || len(rows) != len(c.IDs) {
			t.Fatal(len(rows), err)
		}
		for i, row := range rows {
			best := 0
			for j := range row {
				if row[j] > row[best] {
					best = j
				}
			}
			if len(row) != c.Vocabulary || best != c.Best[i] || !near(row[best], c.BestLogits[i]) {
				t.Errorf("row %d of %d: %d, %v", i, len(row), best, row[best])
			}
		}
	}
	for _, c := range s.Pause {
		paused(t, m, Request{Prompt: c.Prompt, MaxTokens: c.MaxTokens, IgnoreEOS: true})
	}
	for _, c := range s.Meter {
		meter, err := NewMeter(c.Device, c.DollarsPerHour)
		if err != nil {
			t.Fatal(err)
		}
		var shares []Share
		var weights uint64
		for _, s := range c.Shares {
			bill, err := meter.OpenBill(c.Model)
			if err != nil {
				t.Fatal(err)
			}
			shares = append(shares, Share{bill, s.PrefillWeight, s.DecodeWeight, s.InputTokens, s.CachedTokens,
				s.OutputTokens})
			weights += s.PrefillWeight + s.DecodeWeight
		}
		meter.Busy()
		time.Sleep(5 * time.Millisecond)
		charged, err := meter.Charge(shares...)
		if err != nil {
			t.Fatal(err)
		}
		meter.Idle()
		var parts time.Duration
		for i, s := range c.Shares {
			r := shares[i].Bill.Close(s.Finish)
			part := time.Duration(uint64(charged) * (s.PrefillWeight + s.DecodeWeight) / weights)
			cost, _ := CostOf(uint64(r.Device), c.DollarsPerHour)
			if r.Device != part && r.Device != part+1 || r.Cost != cost || r.Finish != s.Finish ||
				(r.Prefill > 0) != (s.PrefillWeight > 0) || (r.Decode > 0) != (s.DecodeWeight > 0) ||
				r.InputTokens != s.InputTokens || r.CachedTokens != s.CachedTokens || r.OutputTokens != s.OutputTokens {
				t.Errorf("share %d of %v: %+v", i, charged, r)
			}
			parts += r.Device
		}
		books, err := meter.Costs()
		if err != nil || parts != charged || books.Serve != charged || books.Models[0].Serve != charged ||
			books.Serve+books.Load+books.Idle != books.AsOf || books.Device != c.Device || books.Models[0].Name != c.Model {
			t.Errorf("%v: %+v %v", charged, books, err)
		}
	}
	meter, err := NewMeter("", "")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range s.GPUMemory {
		meter.SetGPUMemory(c.Used, c.Total)
		meter.SetGPUTaken(c.Taken)
		_, page, err := meter.Metrics("")
		if err != nil || strings.Contains(page, c.Lacks) {
			t.Error(err, page)
		}
		for _, line := range c.Has {
			if !strings.Contains(page, line) {
				t.Errorf("no %q in %s", line, page)
			}
		}
	}
	for _, c := range s.Cost {
		if got, err := CostOf(c.NS, c.DollarsPerHour); err != nil || got.String() != c.Dollars {
			t.Errorf("%+v: %v %v", c, got, err)
		}
	}
	for _, c := range s.Errors {
		var err error
		switch c.Call {
		case "load":
			_, err = e.Load(c.Folder, ModelOptions{})
		case "load again":
			_, err = e.Load(folder(t), ModelOptions{})
		case "generate":
			var ids []int32
			for i := 0; i < c.Repeat || i == 0; i++ {
				ids = append(ids, c.IDs...)
			}
			_, err = m.Generate(context.Background(), Request{PromptIDs: ids})
		case "price":
			err = e.SetPrice(c.Price)
		case "find":
			_, err = e.Find(c.Name)
		case "open":
			_, err = Open(Options{Device: c.Device})
		case "profile":
			_, err = e.Profile()
		default:
			t.Fatal("unknown call", c.Call)
		}
		var failure *Error
		if !errors.As(err, &failure) || failure.Status.Error() != c.Status || failure.Message == "" {
			t.Errorf("%+v: %v", c, err)
		}
	}
	c := costs(t, e)
	if c.Serve+c.Load+c.Idle != c.AsOf {
		t.Errorf("%v + %v + %v is not %v", c.Serve, c.Load, c.Idle, c.AsOf)
	}
}

func TestCancelledByContext(t *testing.T) {
	e, m := open(t)
	ctx, cancel := context.WithCancel(context.Background())
	s, err := m.Submit(Request{Prompt: "Once upon a time", IgnoreEOS: true})
	if err != nil {
		t.Fatal(err)
	}
	if first, err := s.Next(ctx); err != nil || first.Text != " there" {
		t.Fatal(first, err)
	}
	cancel()
	if _, err := s.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	s.Close()
	s.Close()
	if r := s.Report(); r.Finish != "cancelled" || r.Device != costs(t, e).Serve {
		t.Errorf("%+v", r)
	}
	if _, err := s.Next(context.Background()); !errors.Is(err, Closed) {
		t.Error(err)
	}
}

func TestGoroutinesShareTheDevice(t *testing.T) {
	e, m := open(t)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var sum time.Duration
	for i := 0; i < 8; i++ {
		wg.Add(1)
		go func() {
			defer wg.Done()
			r, err := m.Generate(context.Background(), Request{Prompt: "Lily", MaxTokens: 20, Logprobs: true})
			if err != nil || len(r.Choices[0].IDs) != 20 || len(r.Choices[0].Logprobs) != 20 {
				t.Error(r, err)
				return
			}
			mu.Lock()
			sum += r.Report.Device
			mu.Unlock()
		}()
	}
	wg.Wait()
	c := costs(t, e)
	if c.Serve != sum || c.Models[0].Finished["length"] != 8 {
		t.Errorf("%v, want %v: %+v", c.Serve, sum, c.Models)
	}
	kind, page, err := e.Metrics("application/openmetrics-text; version=1.0.0")
	if err != nil || !strings.HasPrefix(kind, "application/openmetrics-text") || !strings.HasSuffix(page, "# EOF\n") {
		t.Error(kind, err)
	}
}

func TestProfile(t *testing.T) {
	e, err := Open(Options{Device: "cpu", Profile: true})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	m, err := e.Load(folder(t), ModelOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Generate(context.Background(), Request{Prompt: "Once", MaxTokens: 2}); err != nil {
		t.Fatal(err)
	}
	kernels, err := e.Profile()
	if err != nil || len(kernels) == 0 {
		t.Fatal(kernels, err)
	}
	for i, k := range kernels {
		if k.Name == "" || k.Launches == 0 || i > 0 && k.Device > kernels[i-1].Device {
			t.Errorf("kernel %d of %+v", i, kernels)
		}
	}
}

func TestTimeout(t *testing.T) {
	_, m := open(t)
	for _, timeout := range []time.Duration{time.Nanosecond, time.Until(time.Now().Add(-time.Second))} {
		r, err := m.Generate(context.Background(), Request{Prompt: "Once upon a time", IgnoreEOS: true, Timeout: timeout})
		if err != nil || r.Choices[0].Finish != "timeout" || r.Report.Finish != "timeout" {
			t.Errorf("%v: %+v %v", timeout, r, err)
		}
	}
}

func TestStreamThatNobodyReads(t *testing.T) {
	_, m := open(t)
	s, err := m.Submit(Request{Prompt: "Once upon a time", MaxTokens: 200, IgnoreEOS: true, UnreadMax: 4})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	time.Sleep(100 * time.Millisecond)
	if n := s.Report().OutputTokens; n < 4 || n > 5 {
		t.Error(n)
	}
}

func TestMeterOfMistakes(t *testing.T) {
	if _, err := NewMeter("lathe", "1e3"); !errors.Is(err, Invalid) {
		t.Error(err)
	}
	a, _ := NewMeter("a", "")
	b, _ := NewMeter("b", "1")
	bill, err := a.OpenBill("turning")
	if err != nil {
		t.Fatal(err)
	}
	a.Busy()
	for _, shares := range [][]Share{{{}}, {{Bill: bill}, {Bill: bill}}} {
		if _, err := a.Charge(shares...); !errors.Is(err, Invalid) {
			t.Error(err)
		}
	}
	if _, err := b.Charge(Share{Bill: bill}); !errors.Is(err, Invalid) {
		t.Error(err)
	}
	if err := b.SetPrice("x"); !errors.Is(err, Invalid) {
		t.Error(err)
	}
	if r := bill.Close("length"); r.Finish != "length" || bill.Close("stop").Finish != "length" {
		t.Error(r)
	}
	if _, err := a.Charge(Share{Bill: bill}); !errors.Is(err, Invalid) {
		t.Error(err)
	}
	if _, page, err := a.Metrics(""); err != nil || !strings.Contains(page, `model_name="turning"`) {
		t.Error(err)
	}
}

func TestPriceByKind(t *testing.T) {
	e, err := Open(Options{Device: "cpu-reference", CPUDollarsPerHour: "2.50", GPUDollarsPerHour: "9",
		NoSpeculation: true})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	m, err := e.Load(folder(t), ModelOptions{})
	if err != nil {
		t.Fatal(err)
	}
	r, err := m.Generate(context.Background(), Request{Prompt: "Once", MaxTokens: 2})
	if err != nil {
		t.Fatal(err)
	}
	if want, _ := CostOf(uint64(r.Report.Device), "2.50"); r.Report.Cost != want {
		t.Error(r.Report)
	}
}

func TestInfo(t *testing.T) {
	_, m := open(t)
	if i := m.Info(); i.Name != "small" || i.VocabSize != 2048 || !i.Loaded || i.Weights == "auto" || i.Parameters == 0 {
		t.Errorf("%+v", i)
	}
}

func TestAfterClose(t *testing.T) {
	e, m := open(t)
	if err := m.Unload(); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Submit(Request{Prompt: "x"}); !errors.Is(err, Closed) {
		t.Error(err)
	}
	e.Close()
	e.Close()
	if _, err := e.Costs(); !errors.Is(err, Closed) {
		t.Error(err)
	}
}

func TestCostsAddExactly(t *testing.T) {
	one, _ := CostOf(1, "0.1")
	three, _ := CostOf(3, "0.1")
	if one.Add(one).Add(one) != three || one.Rat().Cmp(three.Rat()) >= 0 {
		t.Error(one, three)
	}
	if Version() == "" {
		t.Error("no version")
	}
}
