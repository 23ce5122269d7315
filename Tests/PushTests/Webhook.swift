import Foundation
import TestSupport

/// `webhook.py` as a child of the test: a real HTTP server with scripted faults.
final class Webhook: Sendable {
    struct Call: Decodable {
        let path: String
        let key: String
        let attempt: Int
        let at: Double
        let signature: String?
        let body: String

        var object: [String: Any] {
            (try? JSONSerialization.jsonObject(with: Data(body.utf8)) as? [String: Any]) ?? [:]
        }
    }

    private struct Start: Decodable { let port: Int }

    private let process: FanoutProcess
    let port: Int

    init() throws {
        let script = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "webhook.py")
        process = try FanoutProcess([script.path], program: "python3")
        _ = process.waitForOutput("\n")
        port = try JSONDecoder().decode(Start.self, from: Data(process.text.prefix { $0 != "\n" }.utf8)).port
    }

    func url(_ path: String) -> String { "http://127.0.0.1:\(port)\(path)" }

    var calls: [Call] {
        process.text.split(separator: "\n").compactMap { try? JSONDecoder().decode(Call.self, from: Data($0.utf8)) }
    }
}
