import Runtime
import System

/// What `fanout up` shows once everything runs: where to look, who to be, what runs where, how to stop.
struct StatusScreen {
    let configuration: OneMachineConfiguration
    let ports: Ports
    let directory: String
    let postgres: String
    let demo: DemoUsers
    let tookMs: Int

    var text: String {
        let address = "http://127.0.0.1:\(ports.chat)"
        let kafka = configuration.kafka ?? "127.0.0.1:\(ports.broker)"
        var lines = [
            "",
            "  Fanout is up (\(tookMs) ms).",
            "",
            "  open       \(address)/                       a tab is a device, a browser can be several people",
            "",
        ]
        lines += demo.users.map { "  \($0.name.padding(to: 9))  \($0.id)" }
        lines += [
            "",
            "  tokens     \(directory)/demo-users.json",
            "  log        \(kafka)                  kcat -b \(kafka) -t chat.messages -o beginning -u | jq .",
            "  database   \(postgres)",
            "  lag        fanout lag --kafka \(kafka)",
            "  metrics    \(address)/metrics",
        ]
        lines += Pipeline.metricNames.compactMap { name in
            ports.metrics[name].map { "             http://127.0.0.1:\($0)/metrics  \(name)" }
        }
        lines += ["  data       \(directory)", "", "  Ctrl-C stops everything; the next start finds its data.", "", ""]
        return lines.joined(separator: "\n")
    }
}

extension String {
    func padding(to width: Int) -> String {
        count >= width ? self : self + String(repeating: " ", count: width - count)
    }
}
