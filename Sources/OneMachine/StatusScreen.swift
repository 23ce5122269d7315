import PostgresClient
import Runtime
import System
import Wire

/// What `fanout up` shows once everything runs: where to look, who to be, what runs where, how to stop.
struct StatusScreen {
    let pipeline: Pipeline
    /// Where the private database is; `nil` when another is used.
    let postgres: String?

    func text(tookMs: Int) -> String {
        let address = "http://127.0.0.1:\(pipeline.ports.chat)"
        let lines =
            ["", "  Fanout is up (\(tookMs) ms).", ""]
            + table(pages(at: address)) + [""] + people + [""]
            + table([
                ("log", pipeline.kafka, "fanout lag --kafka \(pipeline.kafka)"),
                ("", "", "kcat -b \(pipeline.kafka) -t \(prefix)chat.messages -o beginning -u | jq ."),
                ("database", postgres ?? ConnectionString.shown(pipeline.configuration.postgres ?? ""), databaseNote),
                ("metrics", "\(address)/metrics", metrics),
                ("data", pipeline.directory, ""),
            ])
        return lines.joined(separator: "\n") + "\n\n  Ctrl-C stops everything; the next start finds its data.\n\n"
    }

    private func pages(at address: String) -> [(name: String, value: String, note: String)] {
        guard pipeline.configuration.web != nil else {
            return [
                ("chat", address, "the WebSocket and HTTP API"),
                ("pages", "none: their files are not beside the program", "--web DIR names the repository's web/"),
            ]
        }
        return [
            ("open", "\(address)/", "a tab is a device, a browser can be several people"),
            ("operate", "\(address)/ops", "admin token: \(pipeline.adminTokenFile)"),
        ]
    }

    private var people: [String] {
        guard pipeline.hasDemoPeople else {
            return table([
                ("people", "none were made: the database is not fanout up's own", "--demo-people makes some there"),
                ("tokens", "fanout token --user …", "key: token-key in \(pipeline.directory)/secrets"),
            ])
        }
        let traffic =
            pipeline.configuration.hasDemoTraffic ? "all but \(DemoPeople.all[0].name) talk by themselves" : ""
        return table(
            DemoPeople.all.enumerated().map { index, person in
                (index == 0 ? "people" : "", person.id.description, person.name)
            } + [("tokens", "\(pipeline.directory)/demo-users.json", traffic)])
    }

    private var prefix: String { pipeline.configuration.topicPrefix ?? "" }
    private var databaseNote: String {
        postgres == nil ? "" : "password: postgres-password in \(pipeline.directory)/secrets"
    }

    private var metrics: String {
        Pipeline.metricNames.compactMap { name in pipeline.ports.metrics[name].map { "\(name) :\($0)" } }
            .joined(separator: "  ")
    }

    /// Rows of a name, a value and a remark, each column as wide as it must be.
    private func table(_ rows: [(name: String, value: String, note: String)]) -> [String] {
        let width = rows.map { $0.note.isEmpty ? 0 : $0.value.count }.max() ?? 0
        return rows.map { row in
            let line =
                "  " + row.name.padded(to: 11) + (row.note.isEmpty ? row.value : row.value.padded(to: width + 3))
            return line + row.note
        }
    }
}
