package topicconf

import (
	"strconv"
)

// Source says where a value in force comes from, numbered as in DescribeConfigs.
type Source int8

// The sources in use.
const (
	SourceTopic         Source = 1 // an override of the topic
	SourceBroker        Source = 2 // altered for this broker
	SourceCluster       Source = 3 // altered for all brokers
	SourceStatic        Source = 4 // flags, environment or file
	SourceDefault       Source = 5
	sourceNone          Source = 0
	descriptionCapacity        = 4
)

// Entry is one setting as DescribeConfigs shows it.
type Entry struct {
	*Def

	Value  string // canonical; empty when NullValue
	Source Source
	// NullValue says that the setting has no value.
	NullValue bool
	// Origins are the values that would be in force one after the other, strongest first; the first one is.
	Origins []Origin
}

// IsDefault reports whether nobody set the value.
func (e *Entry) IsDefault() bool { return e.Source == SourceDefault }

// Origin is one value of a setting or of a synonym of it.
type Origin struct {
	Name   string
	Value  string // as set under Name, in its own unit
	Source Source
}

// resolved is a value in force: canonical text in the unit of the setting that was asked for.
type resolved struct {
	text   string
	null   bool
	source Source
}

// resolve returns the value in force of a broker setting.
func (b *Broker) resolve(d *Def) resolved {
	if text, source := b.layers.find(d.Name); source != sourceNone {
		return resolved{text: d.mustParse(text).text(), source: source}
	}
	return resolved{text: d.Default, null: d.Null, source: SourceDefault}
}

// topicDefault returns the value of a topic setting for a topic without an override.
func (b *Broker) topicDefault(d *Def) resolved {
	for _, s := range d.Synonyms {
		if r := b.resolve(brokerIndex[s.Name]); r.source != SourceDefault {
			r.text = s.convert(r.text)
			return r
		}
	}
	return resolved{text: d.Default, source: SourceDefault}
}

// find returns the strongest layer's value.
func (l *layers) find(name string) (string, Source) {
	if v, ok := l.own[name]; ok {
		return v, SourceBroker
	}
	if v, ok := l.cluster[name]; ok {
		return v, SourceCluster
	}
	if v, ok := l.static[name]; ok {
		return v, SourceStatic
	}
	return "", sourceNone
}

// convert brings a synonym's canonical value to the unit of the setting; a negative one means "no bound" in any unit.
func (s Synonym) convert(text string) string {
	if s.Scale <= 1 {
		return text
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return text
	}
	return strconv.FormatInt(n*s.Scale, 10)
}

// DescribeTopic returns every setting of a topic with these overrides, sorted by name.
func (b *Broker) DescribeTopic(overrides map[string]string) []Entry {
	entries := make([]Entry, 0, len(topicDefs))
	for i := range topicDefs {
		d := &topicDefs[i]
		e := Entry{Def: d, Origins: make([]Origin, 0, descriptionCapacity)}
		r := b.topicDefault(d)
		if text, ok := overrides[d.Name]; ok {
			v, err := d.parse(text)
			if err == nil {
				text = v.text()
			}
			r = resolved{text: text, source: SourceTopic}
			e.Origins = append(e.Origins, Origin{Name: d.Name, Value: text, Source: SourceTopic})
		}
		e.Value, e.Source = r.text, r.source
		e.Origins = append(e.Origins, b.origins(d.Synonyms)...)
		if len(d.Synonyms) == 0 {
			e.Origins = append(e.Origins, Origin{Name: d.Name, Value: d.Default, Source: SourceDefault})
		}
		entries = append(entries, e)
	}
	return entries
}

// Describe returns every setting of the broker, sorted by name.
func (b *Broker) Describe() []Entry {
	entries := make([]Entry, 0, len(brokerDefs))
	for i := range brokerDefs {
		d := &brokerDefs[i]
		r := b.resolve(d)
		e := Entry{Def: d, Value: r.text, NullValue: r.null, Source: r.source}
		e.Origins = b.origins(append([]Synonym{{Name: d.Name}}, d.Synonyms...))
		entries = append(entries, e)
	}
	return entries
}

// origins lists what is set for the names layer by layer, then their defaults.
func (b *Broker) origins(names []Synonym) []Origin {
	var out []Origin
	for _, l := range []struct {
		values map[string]string
		source Source
	}{{b.layers.own, SourceBroker}, {b.layers.cluster, SourceCluster}, {b.layers.static, SourceStatic}} {
		for _, s := range names {
			if text, ok := l.values[s.Name]; ok {
				out = append(out, Origin{Name: s.Name, Value: brokerIndex[s.Name].mustParse(text).text(), Source: l.source})
			}
		}
	}
	for _, s := range names {
		if d := brokerIndex[s.Name]; !d.Null {
			out = append(out, Origin{Name: s.Name, Value: d.Default, Source: SourceDefault})
		}
	}
	return out
}
