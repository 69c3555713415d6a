// Reads dashboards as Grafana's schema has them, strictly, and names each field that it does not know, lacks, or has otherwise, by its path.
// The schema is that of Grafana's own SDK; Grafana itself is not asked.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
)

// known tells the SDK which panels the dashboards have: it takes the options of others as they are.
func known() {
	cog.NewRuntime().RegisterPanelcfgVariant(timeseries.VariantConfig())
}

// problems names what is wrong with a dashboard: a line for each field.
func problems(document []byte) []string {
	read := dashboard.Dashboard{}
	found := named("", read.UnmarshalJSONStrict(document))
	found = append(found, named("", read.Validate())...)
	return append(found, inPanels(document)...)
}

// inPanels looks into what the SDK takes as it is: the settings of fields, queries, and panels that it was not told of.
func inPanels(document []byte) (found []string) {
	var board struct {
		Panels []struct {
			Type        string            `json:"type"`
			FieldConfig json.RawMessage   `json:"fieldConfig"`
			Targets     []json.RawMessage `json:"targets"`
			Datasource  struct {
				Type string `json:"type"`
			} `json:"datasource"`
		} `json:"panels"`
	}
	if err := json.Unmarshal(document, &board); err != nil {
		return []string{err.Error()}
	}
	if len(board.Panels) == 0 {
		found = append(found, "panels: there are none")
	}
	for number, panel := range board.Panels {
		path := fmt.Sprintf("panels[%d].", number)
		if panel.Type != timeseries.VariantConfig().Identifier {
			found = append(found, fmt.Sprintf("%stype: this program does not look into %q", path, panel.Type))
		}
		if panel.Datasource.Type != prometheus.VariantConfig().Identifier {
			found = append(found, fmt.Sprintf("%sdatasource.type: this program does not look into queries of %q", path, panel.Datasource.Type))
		}
		fields := dashboard.FieldConfigSource{}
		found = append(found, named(path+"fieldConfig.", fields.UnmarshalJSONStrict(panel.FieldConfig))...)
		for target, text := range panel.Targets {
			query := prometheus.Dataquery{}
			found = append(found, named(fmt.Sprintf("%stargets[%d].", path, target), query.UnmarshalJSONStrict(text))...)
		}
	}
	return found
}

// named gives each error its path. The SDK returns an empty list of errors where there is none.
func named(path string, err error) (found []string) {
	var all cog.BuildErrors
	if !errors.As(err, &all) {
		if err != nil {
			found = append(found, path+err.Error())
		}
		return found
	}
	for _, one := range all {
		found = append(found, path+one.Error())
	}
	return found
}

func main() {
	known()
	wrong := len(os.Args) < 2
	for _, path := range os.Args[1:] {
		document, err := os.ReadFile(path)
		if err != nil {
			fmt.Println(err)
			wrong = true
			continue
		}
		found := problems(document)
		for _, problem := range found {
			fmt.Printf("%s: %s\n", path, problem)
		}
		if len(found) == 0 {
			fmt.Printf("%s: as Grafana's schema has it\n", path)
		}
		wrong = wrong || len(found) > 0
	}
	if wrong {
		os.Exit(1)
	}
}
