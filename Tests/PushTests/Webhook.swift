import Foundation
import TestSupport
import Testing

let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
private let scripts = URL(filePath: #filePath).deletingLastPathComponent()

/// `webhook.py` as a child of the test: a real HTTP server with scripted faults.
final class Webhook: Sendable {
    struct Call: Decodable {
        let path: String
        let key: String?
        let attempt: Int
        let at: Double
        /// Requests under way, this one counted.
        let at_once: Int
        let signature: String?
        let body: String

        var object: [String: Any] {
            (try? JSONSerialization.jsonObject(with: Data(body.utf8)) as? [String: Any]) ?? [:]
        }
        var user: String? { object["user"] as? String }
    }

    private struct Start: Decodable { let port: Int }

    private let process: FanoutProcess
    private let isEncrypted: Bool
    let port: Int

    init(certificate: String? = nil, key: String? = nil) throws {
        isEncrypted = certificate != nil
        process = try FanoutProcess(
            [scripts.appending(path: "webhook.py").path] + [certificate, key].compactMap { $0 }, program: "python3")
        _ = process.waitForOutput("\n")
        port = try JSONDecoder().decode(Start.self, from: Data(process.text.prefix { $0 != "\n" }.utf8)).port
    }

    func url(_ path: String) -> String { "\(isEncrypted ? "https" : "http")://127.0.0.1:\(port)\(path)" }

    var calls: [Call] {
        process.text.split(separator: "\n").compactMap { try? JSONDecoder().decode(Call.self, from: Data($0.utf8)) }
    }
}

/// `push_service.py` as a child of the test: a push service that can read what it gets, as only the browser should.
final class PushService: Sendable {
    struct Message: Decodable {
        struct Claims: Decodable {
            let aud: String
            let exp: Int64
            let sub: String
        }

        let path: String
        let bytes: Int
        let ttl: String?
        let urgency: String?
        let topic: String?
        let encoding: String?
        let signed: Bool?
        let claims: Claims?
        let text: String?
        let error: String?

        var object: [String: Any] {
            (try? JSONSerialization.jsonObject(with: Data((text ?? "").utf8)) as? [String: Any]) ?? [:]
        }
    }

    private struct Start: Decodable {
        let port: Int
        let p256dh: String
        let auth: String
    }

    static let python = root.appending(path: ".venv/bin/python").path
    static var hasPython: Bool { FileManager.default.isExecutableFile(atPath: python) }

    private let process: FanoutProcess
    private let start: Start
    var origin: String { "http://127.0.0.1:\(start.port)" }
    var p256dh: String { start.p256dh }
    var auth: String { start.auth }

    init() throws {
        process = try FanoutProcess([scripts.appending(path: "push_service.py").path], program: Self.python)
        _ = process.waitForOutput("\n")
        start = try JSONDecoder().decode(Start.self, from: Data(process.text.prefix { $0 != "\n" }.utf8))
    }

    var messages: [Message] {
        process.text.split(separator: "\n").compactMap { try? JSONDecoder().decode(Message.self, from: Data($0.utf8)) }
    }
}
