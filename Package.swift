// swift-tools-version: 6.2
import PackageDescription

/// Every target is held to the same settings: data-race safety, explicit `unsafe`, no implicit existentials or
/// re-exported imports, and no warning left standing.
let strict: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .strictMemorySafety(),
    .treatAllWarnings(as: .error),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableExperimentalFeature("Lifetimes"),
    // Codecs and state machines live in modules of their own; without this their generics and small functions
    // would be calls on the hot path.
    .unsafeFlags(["-cross-module-optimization"], .when(configuration: .release)),
]

/// For what handles every delivery: exclusive access is checked as the tests run, in debug builds, and not again in
/// production, where it cost a tenth of the chat server's time under load.
let hot: [SwiftSetting] =
    strict + [.unsafeFlags(["-enforce-exclusivity=unchecked"], .when(configuration: .release))]

/// The layers of ARCHITECTURE.md. A target may depend only on lower layers; `TidyTests` holds the sources to the
/// same table.
let systemLibraries: [Target] = [
    .systemLibrary(name: "CLinux"),
    .systemLibrary(name: "CRdKafka", pkgConfig: "rdkafka", providers: [.apt(["librdkafka-dev"])]),
    .systemLibrary(name: "CPostgres", pkgConfig: "libpq", providers: [.apt(["libpq-dev"])]),
    .systemLibrary(name: "COpenSSL", pkgConfig: "openssl", providers: [.apt(["libssl-dev"])]),
    .systemLibrary(name: "CCurl", pkgConfig: "libcurl", providers: [.apt(["libcurl4-openssl-dev"])]),
    .systemLibrary(
        name: "CCompression",
        providers: [.apt(["zlib1g-dev", "libzstd-dev", "liblz4-dev", "libsnappy-dev"])]),
]

func module(_ name: String, _ dependencies: [Target.Dependency], _ settings: [SwiftSetting] = strict) -> Target {
    .target(name: name, dependencies: dependencies, swiftSettings: settings)
}

func tests(_ name: String, _ dependencies: [Target.Dependency], exclude: [String] = []) -> Target {
    .testTarget(
        name: name + "Tests", dependencies: dependencies + ["TestSupport"], exclude: exclude, swiftSettings: strict)
}

let ground: [Target.Dependency] = ["Wire", "Runtime", "System"]
let stageNames = ["Ingest", "CDC", "StreamJoin", "Delivery", "History", "Push", "Lag", "Broker", "OneMachine", "Bench"]
let stages = stageNames.map { Target.Dependency(stringLiteral: $0) }
let clients: [Target.Dependency] = ["KafkaClient", "PostgresClient", "Store"]

let package = Package(
    name: "fanout",
    products: [.executable(name: "fanout", targets: ["fanout"])],
    targets: systemLibraries + [
        // Layer 1: values and pure machinery.
        module("Wire", []),
        module("Runtime", []),
        // Layer 2: the operating system.
        module("System", ["Runtime", "CLinux", "COpenSSL", "CCompression"], hot),
        // Layer 3: clients and codecs.
        module("KafkaClient", ground + ["CRdKafka"], hot),
        module("PostgresClient", ground + ["CPostgres"]),
        module("Store", ground + ["PostgresClient"]),
        module("HTTPClient", ground + ["CCurl"]),
        module("WebSocket", ground, hot),
        module("PushLink", ground, hot),
        // Layer 4: the stages.
        module("Ingest", ground + clients + ["WebSocket", "PushLink"], hot),
        module("CDC", ground + clients),
        module("StreamJoin", ground + clients, hot),
        module("Delivery", ground + clients + ["PushLink"], hot),
        module("History", ground + clients),
        module("Push", ground + clients + ["HTTPClient"]),
        module("Lag", ground + clients + ["WebSocket"]),
        .target(name: "Broker", dependencies: ground, exclude: ["README.md"], swiftSettings: strict),
        module("Bench", ground + clients + ["WebSocket", "PushLink", "HTTPClient"]),
        module("OneMachine", ground + clients + ["HTTPClient"]),
        // Layer 5: options and wiring.
        .executableTarget(
            name: "fanout", dependencies: ground + clients + ["WebSocket", "PushLink"] + stages, swiftSettings: strict),

        // Private servers, free ports, temporary directories and seeds for the tests.
        .target(
            name: "TestSupport", dependencies: ground + clients + ["Broker"], path: "Tests/TestSupport",
            swiftSettings: strict),
        tests("Wire", ["Wire"]),
        tests("Runtime", ["Runtime"]),
        tests("System", ground),
        tests("KafkaClient", ground + ["KafkaClient"]),
        tests("PostgresClient", ground + ["PostgresClient", "fanout"]),
        tests("Store", ground + ["PostgresClient", "Store"], exclude: ["Plans"]),
        tests("WebSocket", ground + ["WebSocket"]),
        tests("PushLink", ground + ["PushLink"]),
        tests("Ingest", ground + clients + ["Ingest", "WebSocket", "PushLink", "fanout"]),
        tests("CDC", ground + clients + ["CDC", "fanout"], exclude: ["Golden"]),
        tests("StreamJoin", ground + clients + ["StreamJoin", "fanout"]),
        tests("Delivery", ground + clients + ["Delivery", "Ingest", "PushLink", "StreamJoin", "fanout"]),
        tests("History", ground + clients + ["History", "Delivery", "PushLink", "fanout"]),
        tests(
            "Push", ground + clients + ["Push", "HTTPClient", "fanout"], exclude: ["webhook.py", "push_service.py"]),
        tests("HTTPClient", ground + ["HTTPClient"]),
        tests("Lag", ground + clients + ["Lag", "fanout"]),
        tests("Bench", ground + clients + ["Bench", "WebSocket"]),
        tests("OneMachine", ground + clients + ["HTTPClient", "Lag", "OneMachine", "fanout"]),
        .testTarget(
            name: "BrokerTests", dependencies: ground + clients + ["Broker", "fanout", "TestSupport"],
            exclude: ["Interop/interop.py", "Interop/JavaClients.java", "Golden/requests.txt"], swiftSettings: strict),
        tests("EndToEnd", ground + clients + ["WebSocket", "PushLink", "fanout"] + stages),
        tests("Tidy", ["fanout"]),
    ]
)

// libFuzzer needs a compiler flag of its own in every module, so its program is built only when asked for: see scripts/fuzz.
// The same targets run for a moment with all other tests.
let fuzzed: [Target.Dependency] = [
    "Broker", "CDC", "Ingest", "KafkaClient", "WebSocket", "PushLink", "Wire", "System",
]
if Context.environment["FANOUT_FUZZ"] != nil {
    package.targets.append(
        .executableTarget(
            name: "fuzz", dependencies: fuzzed, path: "Tests/Fuzz", exclude: ["FuzzTests.swift"],
            swiftSettings: strict + [.unsafeFlags(["-parse-as-library"])]))
} else {
    package.targets.append(
        .testTarget(
            name: "FuzzTests", dependencies: fuzzed + ["TestSupport"], path: "Tests/Fuzz", exclude: ["LibFuzzer.swift"],
            swiftSettings: strict))
}
